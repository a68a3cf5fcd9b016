//! Executors that fetch their work, at home with one scheduler, and jobs of another.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use muster_integration::world::{World, client, ready, succeeded};
use muster_state::testing::Etcd;

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_executor_fetches_the_jobs_of_schedulers_that_are_not_its_home() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let one = world.scheduler("one", &etcd.url(), &[]).await;
    let two = world.scheduler("two", &etcd.url(), &[]).await;
    let _executor = world.executor("fetcher", "pull", &[one.address()], &["--cpus", "2"]).await;
    let (at_one, at_two) = (client(&[one.address()]).await, client(&[two.address()]).await);
    ready(&at_two, 1).await;
    let many = "name: elsewhere\nstages:\n  a: {tasks: 12, resources: {cpu: 1}, run: 'eval \"$NOTE\"'}\n  b: {inputs: {a: all}, run: 'eval \"$NOTE\"'}\n";
    let job = at_two.submit(world.job(many), None).await.unwrap().job;
    let view = at_two.get_job(job).await.unwrap();
    assert_eq!(view.owner, two.address().to_string(), "the job is not its home's");
    succeeded(&at_two, job).await;
    assert_eq!(world.starts_of("a"), 12);
    // And its home's own jobs still run.
    let job = at_one.submit(world.job(many), None).await.unwrap().job;
    succeeded(&at_one, job).await;
}
