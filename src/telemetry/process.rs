//! Statistics and limits of this process, from the operating system.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Memory of this process, in bytes.
#[derive(Clone, Copy, Default, Debug)]
pub struct Memory {
    /// Resident memory.
    pub resident: u64,
    /// The part of the resident memory that was allocated, rather than read from a file.
    pub anonymous: u64,
}

impl Memory {
    /// Measures the memory now. Returns `None` if the memory is unknown: the system has no `/proc`, or hides it.
    pub fn measure() -> Option<Self> {
        Self::read(&fs::read_to_string("/proc/self/status").ok()?)
    }

    fn read(status: &str) -> Option<Self> {
        let resident = read_kib(status, "VmRSS");
        (resident > 0).then(|| Self { resident, anonymous: read_kib(status, "RssAnon") })
    }
}

/// Memory limit of this process's control group, in bytes; `None` if there is no limit, or if it is unknown.
///
/// The result is the smallest limit among the process's own group and the groups above it. Only groups that the process
/// can see count. In a container, the process can see only its own group.
pub fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().flat_map(limit_files).filter_map(|file| limit(&fs::read_to_string(file).ok()?)).min()
}

/// Replaces this program by a new run of itself if the addresses of the process are limited (RLIMIT_AS). The C library
/// of the new run uses a single arena of memory. By default, the C library reserves 64 MiB of addresses for each thread
/// that allocates, and too few addresses would be left.
///
/// Call this function before any thread starts. The function returns only if a restart is unnecessary or fails.
pub fn save_addresses() {
    const ARENAS: &str = "MALLOC_ARENA_MAX";
    if getrlimit(Resource::As).current.is_none() || env::var_os(ARENAS).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut args = env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = args.next() {
        again.arg0(name);
    }
    // If the restart fails, the hub runs with fewer usable addresses, and so with less memory.
    let _ = again.args(args).env(ARENAS, "1").exec();
}

/// Memory that this process may still allocate, in bytes; `None` if there is no limit, or if it is unknown.
///
/// The limit of the control group counts resident memory. RLIMIT_AS counts all addresses. RLIMIT_DATA counts writable
/// addresses.
pub fn memory_room() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let left = |limit: Option<u64>, field| Some(limit?.saturating_sub(read_kib(&status, field)));
    let rooms = [
        left(memory_limit(), "VmRSS"),
        left(getrlimit(Resource::As).current, "VmSize"),
        left(getrlimit(Resource::Data).current, "VmData"),
    ];
    rooms.into_iter().flatten().min()
}

/// A field of `/proc/self/status`, in bytes. Returns 0 if the field is missing.
fn read_kib(status: &str, field: &str) -> u64 {
    let values = status.lines().filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    values.filter_map(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok()).map(|kib| kib * 1024).sum()
}

/// The limit files for one line of `/proc/self/cgroup`, such as `0::/path` (version 2) or `4:memory:/path` (version 1).
fn limit_files(line: &str) -> Vec<String> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (mount, name) = match parts.next() {
        Some("") => ("/sys/fs/cgroup", "memory.max"),
        Some(controllers) if controllers.split(',').any(|controller| controller == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    // In a container, the process does not see the whole tree. The control group of the process is then the root that
    // the process sees, even if the line in `/proc/self/cgroup` has another path.
    let path = parts.next().unwrap_or_default().trim_end_matches('/');
    let ancestors = path.match_indices('/').map(|(end, _)| &path[..end]).chain([path]);
    ancestors.map(|group| format!("{mount}{group}/{name}")).collect()
}

/// Parses a limit. Version 1 of cgroups expresses "no limit" as a number far beyond any machine's memory.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&bytes| bytes < 1 << 60)
}

/// CPU time of all threads of this process.
pub fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// Number of open files and sockets of this process. Returns `None` if the number is unknown.
pub fn open_files() -> Option<u64> {
    let folder = "/proc/self/fd";
    // Since Linux 6.2 the folder's size is the number of files. On older kernels, the files are counted, which takes
    // long if there are many.
    match fs::metadata(folder).ok()?.len() {
        0 => Some(fs::read_dir(folder).ok()?.count() as u64),
        count => Some(count),
    }
}

/// Whether the process was started with this signal ignored. Returns false if that is unknown.
pub fn ignores(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim);
    mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Maximum number of open files and sockets of this process; `None` means no limit.
pub fn max_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Raises the limit of open files as far as allowed. Returns the new limit.
///
/// The soft limit is 1024 on many systems, for programs that call `select`; a hub with 1,000 connections would exceed
/// it.
pub fn raise_max_files() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // If the limit cannot be raised, the old limit of open files stays in force. `Files::warning` reports a limit
        // that is too low.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    max_files()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_in_bytes() {
        let memory = Memory::read("Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t 1024 kB\nThreads:\t1\n").unwrap();
        assert_eq!((memory.resident, memory.anonymous), (2 << 20, 1 << 20));
        assert!(Memory::read("Name:\tx\n").is_none());
    }

    #[test]
    fn memory_limits_are_found_in_both_cgroup_versions() {
        let root = "/sys/fs/cgroup";
        let two = ["/memory.max", "/a/memory.max", "/a/b.slice/memory.max"];
        assert_eq!(limit_files("0::/a/b.slice"), two.map(|file| format!("{root}{file}")));
        assert_eq!(limit_files("0::/"), [format!("{root}/memory.max")]);
        let one = ["/memory/memory.limit_in_bytes", "/memory/a/memory.limit_in_bytes"];
        assert_eq!(limit_files("4:hugetlb,memory:/a"), one.map(|file| format!("{root}{file}")));
        assert_eq!(limit_files("5:cpu,cpuacct:/a"), [""; 0]);
        assert_eq!(limit_files(""), [""; 0]);

        assert_eq!(limit("1073741824\n"), Some(1 << 30));
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("9223372036854771712\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_statistics_of_this_process_are_plausible() {
        let memory = Memory::measure().unwrap();
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0, "{memory:?}");

        // The test opens many files, because other tests of the process open and close some files at the same time.
        let before = open_files().unwrap();
        let held: Vec<_> = (0..200).map(|_| std::fs::File::open("/proc/self/status").unwrap()).collect();
        assert!(open_files().unwrap() > before + 100, "{before}");
        drop(held);

        let most = raise_max_files();
        assert_eq!(most, getrlimit(Resource::Nofile).maximum);

        let begin = cpu_time();
        let mut x = 1_u64;
        while cpu_time() < begin + Duration::from_millis(2) {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
    }
}
