//! Recording a store's past while it is made, so that a checker can judge it afterwards.
//!
//! Compaction forgets, so a recorder follows live and vouches that it missed nothing; whatever it cannot vouch for is an
//! error, never a shorter history.

mod etcd;
mod memory;

pub use etcd::Etcd;
pub use memory::Memory;

/// Microseconds since the machine started, suspend included: the clock of the executors' journals.
#[must_use]
pub fn boot_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}
