//! The machine's cores, and the CPU time and memory of processes.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

/// The cores that this process may use.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    all: Vec<usize>,
}

impl Cores {
    /// The cores according to the kernel.
    pub(crate) fn found() -> io::Result<Self> {
        let set = sched_getaffinity(None)?;
        Ok(Self { all: (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect() })
    }

    /// Number of cores.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// The core of the generator: the last.
    pub(crate) fn generator(&self) -> Vec<usize> {
        self.all.last().copied().into_iter().collect()
    }

    /// The first `count` cores, for servers. The servers share the generator's core only if there are too few other
    /// cores. For example, with SHARDS=2 on two cores, one shard shares its core with the generator.
    pub(crate) fn server(&self, count: usize) -> Vec<usize> {
        self.all[..count.clamp(1, self.all.len())].to_vec()
    }
}

/// Description of the machine for results.
pub(crate) fn description() -> Value {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = file("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let meminfo = file("/proc/meminfo");
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"]).map(|commit| {
        let is_clean = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|status| status.is_empty());
        if is_clean { commit } else { format!("{commit} with changes") }
    });
    json!({
        "cpu": model.map(|(_, model)| model),
        "cores": Cores::found().map_or(0, |cores| cores.count()),
        "memoryKib": kib.and_then(|kib| kib.parse::<u64>().ok()),
        "kernel": file("/proc/sys/kernel/osrelease").trim(),
        "commit": commit,
    })
}

/// Binds the calling thread, and the threads and processes that it starts later, to these cores.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    Ok(sched_setaffinity(None, &set)?)
}

/// Raises the limit of open files to the maximum.
pub(crate) fn raise_file_limit() -> io::Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(limit.current.unwrap_or(u64::MAX))
}

/// CPU time of processes, by thread.
#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    threads: Vec<(PathBuf, String, u64)>,
}

impl Cpu {
    /// The CPU time of all running threads of these processes.
    pub(crate) fn of(pids: &[u32]) -> io::Result<Self> {
        let mut threads = Vec::new();
        for pid in pids {
            for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let path = task?.path();
                let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
                let ns = thread_ns(&path).unwrap_or(0);
                threads.push((path, name, ns));
            }
        }
        Ok(Self { threads })
    }

    /// The CPU time used since `then`.
    pub(crate) fn since(mut self, then: &Self) -> Self {
        for (path, _, ns) in &mut self.threads {
            let before = then.threads.iter().find(|(old, ..)| old == path).map_or(0, |(.., ns)| *ns);
            *ns = ns.saturating_sub(before);
        }
        self
    }

    /// The CPU time of all threads, in microseconds.
    pub(crate) fn us(&self) -> f64 {
        self.us_of("")
    }

    /// CPU time of the threads whose name begins with this prefix, in microseconds.
    pub(crate) fn us_of(&self, name: &str) -> f64 {
        self.threads.iter().filter(|(_, own, _)| own.starts_with(name)).map(|(.., ns)| *ns as f64 / 1e3).sum()
    }
}

/// CPU time from the scheduler's statistics, or from ticks if the kernel has no such statistics.
fn thread_ns(task: &Path) -> io::Result<u64> {
    if let Ok(text) = std::fs::read_to_string(task.join("schedstat"))
        && let Some(ns) = text.split(' ').next().and_then(|field| field.parse().ok())
    {
        return Ok(ns);
    }
    // In the file `stat`, the name of the thread is in parentheses, and can contain any characters. User and system
    // time are the 12th and 13th fields after the name.
    const TICK_NS: u64 = 10_000_000;
    let text = std::fs::read_to_string(task.join("stat"))?;
    let fields = text.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks * TICK_NS)
}

/// Resident memory of a process, in bytes.
pub(crate) fn rss(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no VmRSS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_use_the_generators_core_last() {
        let cores = Cores { all: vec![2, 5, 7] };
        assert_eq!((cores.server(1), cores.server(2), cores.generator()), (vec![2], vec![2, 5], vec![7]));
        assert_eq!(cores.server(9), [2, 5, 7]);
        let one = Cores { all: vec![3] };
        assert_eq!((one.server(2), one.generator()), (vec![3], vec![3]));
    }

    #[test]
    fn work_increases_the_cpu_time() {
        let pid = std::process::id();
        let before = Cpu::of(&[pid]).unwrap();
        let begin = std::time::Instant::now();
        let mut x = 1u64;
        while begin.elapsed().as_millis() < 60 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        let used = Cpu::of(&[pid]).unwrap().since(&before);
        assert!((5_000.0..60e6).contains(&used.us()), "{} us", used.us());
        assert!(used.us_of("nobody") < 1.0);
        assert!(rss(pid).unwrap() > 100_000);
    }
}
