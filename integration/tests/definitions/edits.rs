//! Edits: what becomes a revision, and what is refused.

use muster_client::{Error, v1};

use super::{cluster_of_one, define, made_of, referring, request, run, text, undefine};

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_the_next_revision_and_what_has_not_changed_is_none() {
    let (_scheduler, client) = cluster_of_one().await;
    let first = text("{name: etl, run: 'true'}");
    assert_eq!(define(&client, vec![first.clone()]).await, Ok(vec![1]));
    assert_eq!(define(&client, vec![first.clone()]).await, Ok(vec![1]), "it is what it was");
    assert_eq!(define(&client, vec![text("{name: etl, run: 'false'}")]).await, Ok(vec![2]));
    let wanted = |revision| v1::GetDefinitionRequest { name: "etl".to_owned(), revision, ..Default::default() };
    let old = client.definition(wanted(1)).await.unwrap();
    assert_eq!((old.revision, old.latest, old.text), (1, 2, Some(first)), "revisions are kept as they were written");
    let missing = client.definition(wanted(3)).await.unwrap_err().to_string();
    assert!(missing.contains("etl has no revision 3: the newest one is 2"), "{missing}");

    let job = client.run_definition(v1::RunDefinitionRequest { revision: 1, ..request("etl") }).await.unwrap().job;
    assert_eq!(made_of(&client, job).await, ["etl@1"]);
    let job = run(&client, "etl").await;
    assert_eq!(made_of(&client, job).await, ["etl@2"]);

    undefine(&client, "etl", false).await.unwrap();
    assert!(matches!(client.run_definition(request("etl")).await, Err(Error::NotFound(_))));
    assert_eq!(define(&client, vec![text("{name: etl, run: ls}")]).await, Ok(vec![3]), "no number is used again");
    assert!(matches!(client.definition(wanted(1)).await, Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn self_reference_and_a_circle_are_refused_at_definition_with_the_path_printed() {
    let (_scheduler, client) = cluster_of_one().await;
    let refused = define(&client, vec![referring("a", &["a"])]).await.unwrap_err();
    assert!(refused.contains("in a circle: a → a"), "{refused}");
    let all = vec![referring("a", &["b"]), referring("b", &["c"]), referring("c", &["a"])];
    let refused = define(&client, all).await.unwrap_err();
    assert!(refused.contains("in a circle: b → c → a → b"), "{refused}");
    assert!(client.list_definitions(None).await.unwrap().is_empty(), "all or none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_makes_another_one_cyclic_is_refused() {
    let (_scheduler, client) = cluster_of_one().await;
    let all = vec![referring("a", &["b"]), referring("b", &["c"]), referring("c", &[])];
    assert_eq!(define(&client, all).await, Ok(vec![1, 1, 1]));
    let refused = define(&client, vec![referring("c", &["a"])]).await.unwrap_err();
    assert!(refused.contains("a → b → c → a"), "{refused}");
    // An older revision is no part of what the newest one would be.
    assert_eq!(define(&client, vec![referring("c", &["c@1"])]).await, Ok(vec![2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_at_the_same_time_close_no_circle() {
    let (_scheduler, client) = cluster_of_one().await;
    for round in 0..10 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        define(&client, vec![referring(&a, &[]), referring(&b, &[])]).await.unwrap();
        let (one, other) =
            tokio::join!(define(&client, vec![referring(&a, &[&b])]), define(&client, vec![referring(&b, &[&a])]),);
        assert!(one.is_ok() != other.is_ok(), "round {round}: {one:?}, {other:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_child_is_a_clear_error_at_definition_and_at_submit() {
    let (_scheduler, client) = cluster_of_one().await;
    let refused = define(&client, vec![referring("etl", &["clean"])]).await.unwrap_err();
    assert!(refused.contains("etl: stages.s0.job: there is no definition `clean`"), "{refused}");
    assert_eq!(define(&client, vec![referring("etl", &["clean"]), referring("clean", &[])]).await, Ok(vec![1, 1]));
    let refused = define(&client, vec![referring("etl", &["clean@7"])]).await.unwrap_err();
    assert!(refused.contains("there is no revision 7 of the definition `clean`"), "{refused}");

    undefine(&client, "clean", true).await.unwrap();
    let refused = client.run_definition(request("etl")).await.unwrap_err().to_string();
    assert!(refused.contains("there is no definition `clean`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_or_renaming_a_definition_in_use_names_the_users() {
    let (_scheduler, client) = cluster_of_one().await;
    let all = vec![referring("clean", &[]), referring("etl", &["clean"]), referring("report", &["clean@1"])];
    define(&client, all).await.unwrap();
    let rename = |force| {
        let request = v1::RenameDefinitionRequest {
            name: "clean".to_owned(),
            to: "scrub".to_owned(),
            force,
            ..v1::RenameDefinitionRequest::default()
        };
        client.rename_definition(request)
    };
    for refused in [undefine(&client, "clean", false).await, rename(false).await] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("clean is used by etl, report"), "{refused}");
    }
    assert_eq!(rename(true).await.unwrap(), ["etl", "report"]);
    let refused = client.run_definition(request("etl")).await.unwrap_err().to_string();
    assert!(refused.contains("it is called `scrub` now"), "{refused}");
    let job = run(&client, "scrub").await;
    assert_eq!(made_of(&client, job).await, ["scrub@1"], "its revisions went with it");
    assert_eq!(undefine(&client, "scrub", false).await.unwrap(), [""; 0]);
    let circle = define(&client, vec![referring("scrub", &["etl"])]).await.unwrap_err();
    assert!(circle.contains("there is no definition `clean`"), "what there was is not what there is: {circle}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_closes_no_circle_either() {
    let (_scheduler, client) = cluster_of_one().await;
    define(&client, vec![referring("clean", &[]), referring("etl", &["clean"])]).await.unwrap();
    undefine(&client, "clean", true).await.unwrap();
    // `etl` refers to a name that stands for nothing now; under that name, this one would contain itself.
    define(&client, vec![referring("base", &[])]).await.unwrap();
    define(&client, vec![text("{name: clean, run: 'true'}")]).await.unwrap();
    define(&client, vec![referring("base", &["etl"])]).await.unwrap();
    undefine(&client, "clean", true).await.unwrap();
    let request = v1::RenameDefinitionRequest {
        name: "base".to_owned(),
        to: "clean".to_owned(),
        force: true,
        ..v1::RenameDefinitionRequest::default()
    };
    let refused = client.rename_definition(request).await.unwrap_err().to_string();
    assert!(refused.contains("in a circle"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_holds_all_that_is_used_and_is_defined_in_any_order() {
    let (_scheduler, client) = cluster_of_one().await;
    let all = vec![
        referring("top", &["left", "right"]),
        referring("left", &["bottom"]),
        referring("right", &["bottom"]),
        referring("bottom", &[]),
        referring("other", &[]),
    ];
    define(&client, all).await.unwrap();
    let wanted = v1::GetDefinitionRequest { name: "top".to_owned(), ..Default::default() };
    let mut bundle = client.export_definition(wanted).await.unwrap();
    assert_eq!(bundle.len(), 4);
    for _ in 0..2 {
        let (_elsewhere, there) = cluster_of_one().await;
        define(&there, bundle.clone()).await.unwrap();
        let job = run(&there, "top").await;
        assert_eq!(made_of(&there, job).await, ["top@1", "bottom@1", "left@1", "right@1"]);
        bundle.reverse();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_or_too_large_is_refused_by_name() {
    let (_scheduler, client) = cluster_of_one().await;
    let name = |name: &str| vec![text(&format!("{{name: '{name}', run: 'true'}}"))];
    for (wrong, why) in [("etl@3", "it ends as a revision does"), ("etl.yaml", "it looks like a file's")] {
        let refused = define(&client, name(wrong)).await.unwrap_err();
        assert!(refused.contains(why), "{wrong}: {refused}");
    }
    let twice = [name("etl"), name("etl")].concat();
    assert!(define(&client, twice).await.unwrap_err().contains("etl is there twice"));
    let elsewhere = text("{name: a, namespace: team, run: 'true'}");
    let refused = define(&client, vec![name("etl").remove(0), elsewhere]).await.unwrap_err();
    assert!(refused.contains("of several namespaces (default, team, …)"), "{refused}");
    let long = text(&format!("{{name: long, run: '{}'}}", "x".repeat(60_000)));
    let mut large = text("{name: large, run: 'true'}");
    large.text = "#".repeat(300_000);
    assert_eq!(define(&client, vec![long]).await, Ok(vec![1]));
    assert!(define(&client, vec![large]).await.unwrap_err().contains("DEFINITION_BYTES_MAX"));
    let many: Vec<_> = (0..61).map(|n| referring(&format!("d{n}"), &[])).collect();
    assert!(define(&client, many.clone()).await.unwrap_err().contains("DEFINED_AT_ONCE_MAX"));
    assert_eq!(define(&client, many[..60].to_vec()).await, Ok(vec![1; 60]), "as many as that fit one transaction");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_calls_what_was_renamed_as_it_is_called_now() {
    let (_scheduler, client) = cluster_of_one().await;
    define(&client, vec![referring("clean", &[])]).await.unwrap();
    let rename = v1::RenameDefinitionRequest {
        name: "clean".to_owned(),
        to: "scrub".to_owned(),
        ..v1::RenameDefinitionRequest::default()
    };
    client.rename_definition(rename).await.unwrap();
    define(&client, vec![referring("etl", &["scrub"])]).await.unwrap();
    let wanted = v1::GetDefinitionRequest { name: "etl".to_owned(), ..Default::default() };
    let bundle = client.export_definition(wanted).await.unwrap();
    let (_elsewhere, there) = cluster_of_one().await;
    define(&there, bundle).await.unwrap();
    let job = run(&there, "etl").await;
    assert_eq!(made_of(&there, job).await, ["etl@1", "scrub@1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_a_child_does_not_take_are_refused_at_definition() {
    let (_scheduler, client) = cluster_of_one().await;
    let child = text("{name: clean, run: ls, params: {n: {type: int, max: 9}, day: text}, tasks: {$param: n}}");
    define(&client, vec![child]).await.unwrap();
    let parent =
        |with: &str| text(&format!("{{name: etl, params: {{n: int}}, stages: {{a: {{job: clean, with: {with}}}}}}}"));
    // What the parent is given is not known yet.
    assert_eq!(define(&client, vec![parent("{n: {$param: n}, day: monday}")]).await, Ok(vec![1]));
    let refused = define(&client, vec![parent("{n: 10, dya: monday}")]).await.unwrap_err();
    for said in [
        "stages.a.with: revision 1 of `clean`",
        "`10` is out of range",
        "did you mean `day`?",
        "params.day: the parameter has no value",
    ] {
        assert!(refused.contains(said), "{said}: {refused}");
    }
}
