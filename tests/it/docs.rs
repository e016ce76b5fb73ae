//! Runs the shell blocks of the documentation. A comment above each block names the test that runs the block, or gives
//! the reason why no test does.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::ports::free_port;

/// Pages that may contain commands.
const PAGES: [&str; 19] = [
    "README.md",
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    "PRODUCTION.md",
    "clients/js/README.md",
    "docs/client.md",
    "docs/decisions.md",
    "docs/metrics.md",
    "docs/migrate-from-peerjs.md",
    "docs/migrate-from-peerpigeon-js.md",
    "docs/operations.md",
    "docs/performance.md",
    "docs/protocol.md",
    "docs/runbook.md",
    "docs/security.md",
    "docs/troubleshooting.md",
    "examples/README.md",
    "k8s/README.md",
    "tests/sim/README.md",
];

/// A shell block.
struct Block {
    page: &'static str,
    /// The text after `run:` in the comment above the block: a name, or `no` and the reason.
    run: String,
    commands: String,
}

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for name in PAGES {
        let text = page(name);
        let lines: Vec<&str> = text.lines().collect();
        for (i, _) in lines.iter().enumerate().filter(|(_, line)| ["```bash", "```sh"].contains(line)) {
            let comment = lines[i - 1].strip_prefix("<!-- run: ").and_then(|rest| rest.strip_suffix(" -->"));
            let run = comment.unwrap_or_else(|| {
                panic!("{name}:{}: the comment `<!-- run: … -->` is missing above this block", i + 1)
            });
            let commands = lines[i + 1..].iter().take_while(|line| **line != "```");
            let commands = commands.fold(String::new(), |all, line| all + line + "\n");
            blocks.push(Block { page: name, run: run.to_owned(), commands });
        }
    }
    blocks
}

/// The commands of a block of README.md.
fn readme(run: &str) -> String {
    commands("README.md", run)
}

/// The commands of a block.
pub fn commands(page: &str, run: &str) -> String {
    let block = blocks().into_iter().find(|block| block.page == page && block.run.starts_with(run));
    block.unwrap_or_else(|| panic!("{page} has no block {run}")).commands
}

/// Runs commands in bash, as a reader of the page would. After each command in the background, the script waits until
/// the command's port answers. Documented ports are replaced by free ports. `checks` run afterwards in the same shell.
fn run(commands: &str, checks: &str) {
    let (mut commands, mut checks) = (commands.to_owned(), checks.to_owned());
    let ports = ["8080", "8081", "8082", "8083", "8084", "8085", "6379"].map(|port| (port, free_port().to_string()));
    // Ports are replaced in two steps, because a free port such as 18081 can contain a documented port.
    for (at, (documented, _)) in ports.iter().enumerate() {
        let mark = format!("<port {at}>");
        commands = commands.replace(documented, &mark);
        checks = checks.replace(documented, &mark);
    }
    for (at, (_, free)) in ports.iter().enumerate() {
        let mark = format!("<port {at}>");
        commands = commands.replace(&mark, free);
        checks = checks.replace(&mark, free);
    }
    let mut script = String::from(
        "set -e\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n\
         command -v curl >/dev/null || curl() { peerpigeon health --url \"http://${@: -1}\"; }\n\
         answers() { until (exec 3<>\"/dev/tcp/127.0.0.1/$1\") 2>/dev/null; do read -rt 0.02 <> <(:) || true; done; \
         }\n",
    );
    for line in commands.lines() {
        let _ = writeln!(script, "{line}");
        let port = line.split_once("PORT=").or_else(|| line.split_once("--port ")).map(|(_, rest)| rest);
        if let Some(port) = port.filter(|_| line.trim_end().ends_with('&')) {
            let _ = writeln!(script, "answers {}", port.split(' ').next().unwrap());
        }
    }
    script += &checks;
    let directory = Path::new(env!("CARGO_BIN_EXE_peerpigeon")).parent().unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let ran = Command::new("timeout")
        .args(["60", "bash", "-c", &script])
        .env("PATH", path)
        .env("SHARDS", "1")
        .env("LOG_LEVEL", "warn")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}\n{script}\n--- stdout\n{out}\n--- stderr\n{err}", ran.status);
}

#[test]
fn every_block_says_whether_a_test_runs_it() {
    let known = ["two-hubs", "third-hub", "redis-hubs; needs redis-server", "tools", "certificates"];
    for Block { page, run, .. } in blocks() {
        let told = run.strip_prefix("no; ").is_some_and(|reason| !reason.is_empty());
        assert!(told || known.contains(&run.as_str()), "{page}: no test runs a block named {run:?}");
    }
}

#[test]
fn both_languages_have_the_same_commands() {
    let commands = |page: &str| {
        let blocks = blocks().into_iter().filter(|block| block.page == page);
        let bare = |commands: String| {
            commands.lines().map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect::<Vec<_>>()
        };
        blocks.map(|block| (block.run, bare(block.commands))).collect::<Vec<_>>()
    };
    assert_eq!(commands("README.md"), commands("README.zh-CN.md"));
}

#[test]
fn readme_commands_link_hubs_on_one_machine() {
    let commands = readme("two-hubs") + &readme("third-hub");
    let three = "until curl -s localhost:8083/metrics | grep -qx 'peerpigeon_mesh_hubs 2'; do :; done\n\
                 curl -s localhost:8081/hubs | grep -q '\"peers\"'\n";
    run(&commands, three);
}

#[test]
fn readme_commands_connect_hubs_by_redis() {
    let commands = readme("redis-hubs").replace("redis-server --save", "redis-server --port 6379 --save");
    run(&commands, "until curl -s localhost:8085/metrics | grep -qx 'peerpigeon_mesh_hubs 1'; do :; done\n");
}

#[test]
fn readme_commands_of_the_tools_work() {
    let id = "0123456789abcdef0123456789abcdef01234567";
    // With the documented times and numbers of peers, this test would take a minute.
    let commands = readme("tools")
        .replace("--listen 10s", "--listen 1s")
        .replace("doctor ws", "doctor --patience 0 ws")
        .replace("--peers 500 --duration 30", "--peers 50 --duration 1")
        .replace("<id>", id);
    assert!(commands.contains("--peers 50") && commands.contains(id), "{commands}");
    let target = format!(
        "PORT=8080 peerpigeon &\n\
         peerpigeon peer --hub ws://localhost:8080 --network lobby --peer-id {id} >/dev/null &\n\
         until curl -s localhost:8080/metrics | grep -qx 'peerpigeon_members 1'; do :; done\n"
    );
    run(&(target + &commands), "");
}
