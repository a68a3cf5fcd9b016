//! Many jobs and groups that come into being at once: from several clients at several schedulers, one of which dies.

use std::collections::BTreeSet;

use super::*;

const BUNCHES: u64 = 12;
const JOBS: usize = 40;

/// A bunch: a group of its own, in a group that another bunch makes, and jobs in it, of which one fails.
fn bunch(world: &World, number: u64) -> v1::StageUpdateRequest {
    let path = format!("sweep/g{number}");
    let mut groups = vec![path.clone()];
    if number == BUNCHES - 1 {
        groups.push("sweep".to_owned());
    }
    let jobs = (0..JOBS).map(|place| {
        let script = if place == 0 { "false" } else { "true" };
        world.job(&format!("{{name: j{place}, group: {path}, stages: {{work: {{run: '{script}'}}}}}}"))
    });
    v1::StageUpdateRequest {
        token: "sweep-1".to_owned(),
        bunch: number,
        groups: groups.into_iter().map(|path| v1::StagedGroup { path, spec: None }).collect(),
        jobs: jobs.collect(),
        ..v1::StageUpdateRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_comes_into_being_at_once_whoever_dies() {
    let mut cluster = Cluster::start().await;
    let addresses: Vec<_> = cluster.schedulers.iter().map(Process::address).collect();
    let both = client(&addresses).await;
    both.open_update("", "sweep-1").await.unwrap();
    // Two clients, each with every other bunch; in the middle of it one of the schedulers dies.
    let Cluster { world, schedulers, .. } = &mut cluster;
    let world = &*world;
    let stage = async |first: u64| {
        let mut ids: Vec<String> = Vec::new();
        for number in (first..BUNCHES).step_by(2) {
            ids.extend(both.stage_update(bunch(world, number)).await.unwrap().job_ids);
        }
        ids
    };
    let dying = async {
        both.stage_update(bunch(world, 0)).await.unwrap();
        schedulers[1].kill();
    };
    let (mut ids, some, ()) = tokio::join!(stage(0), stage(1), dying);
    ids.extend(some);
    assert_eq!(ids.len(), JOBS * BUNCHES as usize);
    assert_eq!(all(&both).await, BTreeMap::from([(String::new(), [0; 4])]), "nothing of it is there");
    assert!(matches!(both.get_job(ids[0].parse().unwrap()).await, Err(Error::NotFound(_))));

    // All of it once more, by who does not know what came through.
    for number in 0..BUNCHES {
        let again = both.stage_update(bunch(world, number)).await.unwrap();
        assert!(again.existed && again.job_ids.iter().all(|id| ids.contains(id)), "{number}");
    }
    let declared = (BUNCHES + 1, (JOBS * BUNCHES as usize) as u64);
    let committed = both.commit_update("", "sweep-1", declared).await.unwrap();
    assert_eq!(
        (committed.state(), committed.groups, committed.jobs),
        (v1::UpdateState::Committed, declared.0, declared.1)
    );
    let sweep = both.group("", "sweep").await.unwrap();
    assert_eq!(jobs(&sweep).iter().sum::<u64>(), declared.1, "all of it is there");
    let sweep = both.wait_group("", "sweep").await.unwrap();
    let listed = both.list_jobs(v1::ListJobsRequest { limit: 1_000, ..Default::default() }).await.unwrap().jobs;
    let listed: BTreeSet<String> = listed.into_iter().map(|job| job.job_id).collect();
    assert_eq!(listed, ids.iter().cloned().collect());
    let failed = BUNCHES;
    assert_eq!(jobs(&sweep), [0, declared.1 - failed, failed, 0]);
    for number in 0..BUNCHES {
        let group = both.group("", &format!("sweep/g{number}")).await.unwrap();
        assert_eq!(jobs(&group), [0, JOBS as u64 - 1, 1, 0]);
    }
    assert_eq!(both.audit(false).await.unwrap().findings, []);
    // The same commit again is the same update.
    eventually("all of its jobs are a scheduler's", 30, async || {
        let view = both.commit_update("", "sweep-1", declared).await.unwrap();
        (view.jobs_owned == declared.1).then_some(())
    })
    .await;
}
