//! The cost of parsing a message with the hub's codec, compared with serde_json and simd-json.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn messages() -> Vec<(&'static str, String)> {
    let target = "b".repeat(40);
    let address = "candidate:1 1 udp 2122260223 192.0.2.1 50000 typ host";
    let candidate = format!(r#"{{"candidate":"{address}","sdpMid":"0","sdpMLineIndex":0}}"#);
    let sdp: String =
        (0..40).map(|i| format!("a=candidate:{i} 1 udp 2122260223 192.0.2.1 {} typ host\\r\\n", 50_000 + i)).collect();
    let offer = format!(r#"{{"type":"offer","sdp":"{sdp}"}}"#);
    let signal = |kind, data| {
        (kind, format!(r#"{{"type":"{kind}","targetPeerId":"{target}","networkName":"lobby","data":{data}}}"#))
    };
    vec![
        ("announce", r#"{"type":"announce","networkName":"lobby","data":{"name":"Ann","version":"1.2.3"}}"#.to_owned()),
        signal("ice-candidate", candidate),
        signal("offer", offer),
    ]
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, text) in messages() {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::new("codec", name), &text, |b, text| {
            b.iter(|| proto::parse(black_box(text)).is_ok());
        });
        group.bench_with_input(BenchmarkId::new("serde_json value", name), &text, |b, text| {
            b.iter(|| serde_json::from_str::<serde_json::Value>(black_box(text)).is_ok());
        });
        group.bench_with_input(BenchmarkId::new("simd-json tape", name), &text, |b, text| {
            let mut buffers = simd_json::Buffers::default();
            b.iter(|| {
                // simd-json overwrites its input, so a copy is part of its cost.
                let mut bytes = black_box(text).as_bytes().to_vec();
                simd_json::to_tape_with_buffers(&mut bytes, &mut buffers).is_ok()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
