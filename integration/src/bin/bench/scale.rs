//! How much is measured: in full, or with `QUICK=1` in about a fifth of the time, which is good for a first look alone.

/// Sizes of the measurements.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Scale {
    /// Rounds; every figure is the median over them.
    pub(crate) rounds: u32,
    /// Processes of the raw limits.
    pub(crate) spawns: u32,
    /// Tasks of jobs of processes.
    pub(crate) processes: u32,
    /// Tasks of the peers, which are slower.
    pub(crate) peer_tasks: u32,
    /// Tasks of the no-op jobs.
    pub(crate) no_ops: u32,
    /// Tasks of the job that the largest one is compared with.
    pub(crate) few: u32,
    /// Tasks of the largest job.
    pub(crate) million: u32,
    /// Jobs of one task, one after another.
    pub(crate) singles: u32,
    /// Small jobs beside the largest one.
    pub(crate) beside: u32,
    /// Jobs of a group.
    pub(crate) jobs: u32,
    /// Seconds of load for what is measured over time.
    pub(crate) seconds: u64,
    /// Executors of the fleet.
    pub(crate) fleet: u32,
}

impl Scale {
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let quick = std::env::var("QUICK").is_ok_and(|quick| quick == "1");
        let mut scale = if quick {
            Self {
                rounds: 2,
                spawns: 2000,
                processes: 2000,
                peer_tasks: 500,
                no_ops: 20_000,
                few: 10_000,
                million: 100_000,
                singles: 40,
                beside: 20,
                jobs: 2_000,
                seconds: 5,
                fleet: 1000,
            }
        } else {
            Self {
                rounds: 5,
                spawns: 4000,
                processes: 10_000,
                peer_tasks: 3000,
                no_ops: 100_000,
                few: 10_000,
                million: 1_000_000,
                singles: 100,
                beside: 100,
                jobs: 10_000,
                seconds: 10,
                fleet: 1000,
            }
        };
        if let Some(rounds) = std::env::var("ROUNDS").ok().filter(|rounds| !rounds.is_empty()) {
            scale.rounds = rounds
                .parse()
                .ok()
                .filter(|rounds| *rounds > 0)
                .ok_or_else(|| anyhow::anyhow!("ROUNDS is '{rounds}': give the number of rounds, 1 or more"))?;
        }
        Ok(scale)
    }
}
