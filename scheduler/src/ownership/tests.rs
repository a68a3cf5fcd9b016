//! Under which token a job comes into memory.

use muster_graph::ids::JobId;
use muster_state::Memory;

use super::*;
use crate::engine::tests::{Bench, spec};
use crate::shell::Inputs;

/// Takes a job in, and answers the token under which it came.
async fn taken(shared: &Arc<Shared>, inputs: &mut Inputs, empty: &mut Bench, id: JobId, given: Revision) -> Revision {
    let taking = tokio::spawn(take_in(Arc::clone(shared), id, given));
    let token = loop {
        match inputs.recv().await.expect("the job is taken in") {
            Input::Adopted(loaded) => break loaded.cursor.token,
            // No job is in its memory.
            Input::Read(look) => look(&mut empty.engine),
            _ => panic!("the job is taken in"),
        }
    };
    taking.await.unwrap();
    token
}

#[tokio::test]
async fn a_job_is_taken_in_under_the_token_it_was_given_with_and_under_a_new_one_if_that_has_moved() {
    let state: Arc<dyn StateBackend> = Arc::new(Memory::new());
    let mut giver = Bench::over(Arc::clone(&state), "giver").await;
    let id = giver.submit(1, spec(&[("a", 2, &[])])).await;
    giver.commit_all().await;
    let (shared, mut inputs) = Shared::without_engine(&state).await;
    let mut empty = Bench::over(Arc::clone(&state), "empty").await;
    let owner = owner_record(&shared, &shared.presence().identity.session);
    let given = state.put(keys::owner(id), codec::encode(&owner).unwrap()).await.unwrap();
    assert_eq!(taken(&shared, &mut inputs, &mut empty, id, given).await, given);
    // The scan has found it before the call came, and has let it go again since.
    let found = state.put(keys::owner(id), codec::encode(&owner).unwrap()).await.unwrap();
    let renewed = taken(&shared, &mut inputs, &mut empty, id, given).await;
    assert!(renewed > found, "what was sent under {found} may still be on its way");
    let stored = state.get(&keys::owner(id)).await.unwrap().unwrap();
    assert_eq!(stored.mod_revision, renewed);
    // A peer that names no token.
    assert!(taken(&shared, &mut inputs, &mut empty, id, 0).await > renewed);
}
