//! How groups are made, found and listed.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_is_made_from_the_root_down_and_what_is_said_of_a_group_stays() {
    let cluster = Cluster::start().await;
    let [one, two] = &cluster.clients;
    let spec = |spring: &str| v1::GroupSpec {
        attributes: [("campaign".to_owned(), spring.to_owned())].into(),
        cancel_after_failures: 3,
        callback: "http://127.0.0.1:9/".to_owned(),
    };

    // A parent must exist, but for the root, which always does.
    let orphan = one.create_group(group("a/b", spec("x"))).await.unwrap_err();
    assert!(matches!(orphan, Error::NotFound(_)), "{orphan:?}");
    assert!(two.group("", "").await.is_ok() && two.group("", "/").await.is_ok());
    let made = one.create_group(group("/a", spec("spring"))).await.unwrap();
    // The same again is the same group; otherwise it is refused.
    assert_eq!(two.create_group(group("a", spec("spring"))).await.unwrap().id, made.id);
    let other = two.create_group(group("a", spec("autumn"))).await.unwrap_err();
    assert!(matches!(&other, Error::AlreadyExists(why) if why.contains("groups do not change")), "{other:?}");
    let found = two.group("", &format!("id:{}", made.id)).await.unwrap();
    assert_eq!((found.path.as_str(), found.spec), ("a", Some(spec("spring"))));
    // By id as by path, in its own namespace alone.
    let missing = two.group("other", &format!("id:{}", made.id)).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound(_)), "{missing:?}");

    // Five levels, and not one more.
    cluster.create(&["a/b", "a/b/c", "a/b/c/d", "a/b/c/d/e", "a-b", "z"]).await;
    let too_deep = one.create_group(group("a/b/c/d/e/f", v1::GroupSpec::default())).await.unwrap_err();
    assert!(matches!(&too_deep, Error::InvalidArgument(why) if why.contains("GROUP_DEPTH_MAX")), "{too_deep:?}");
    let unnamed = one.create_group(group("a//b", v1::GroupSpec::default())).await.unwrap_err();
    assert!(matches!(unnamed, Error::InvalidArgument(_)), "{unnamed:?}");

    // All that is in a group follows it, whatever sorts between.
    let paths = async |from: &str, depth| {
        let listed = two.list_groups("", from, depth).await.unwrap();
        listed.into_iter().map(|view| view.path).collect::<Vec<_>>()
    };
    assert_eq!(paths("", 0).await, ["", "a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/e", "a-b", "z"]);
    assert_eq!(paths("a", 1).await, ["a", "a/b"]);
    let mut request = v1::ListGroupsRequest { limit: 3, ..Default::default() };
    let mut paged = Vec::new();
    loop {
        let page = two.list_groups_page(request.clone()).await.unwrap();
        paged.extend(page.groups.into_iter().map(|view| view.path));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(paged, paths("", 0).await);

    // An empty group is complete and successful.
    let empty = cluster.complete("a").await;
    assert_eq!((empty.state(), jobs(&empty)), (v1::GroupState::Successful, [0; 4]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_in_one_group_and_listed_with_it_and_with_those_around_it() {
    let cluster = Cluster::start().await;
    cluster.create(&["a", "a/b", "ab"]).await;
    let missing = cluster.submit_stages("a/x", "work: {run: 'true'}").await.unwrap_err();
    assert!(matches!(&missing, Error::NotFound(why) if why.contains("a/x")), "{missing:?}");
    let misnamed = cluster.clients[0]
        .submit(v1::JobSpec { group: "a b".to_owned(), ..cluster.world.job("{name: j, run: 'true'}") }, None)
        .await
        .unwrap_err();
    assert!(matches!(&misnamed, Error::InvalidArgument(why) if why.contains("group")), "{misnamed:?}");

    let mut submitted = BTreeMap::new();
    for path in ["", "a", "a/b", "ab"] {
        submitted.insert(path, cluster.submit(path, "true").await);
    }
    cluster.complete("").await;
    let listed = async |group: &str, recursive| {
        let request = v1::ListJobsRequest { group: Some(group.to_owned()), recursive, ..Default::default() };
        let jobs = cluster.clients[1].list_jobs(request).await.unwrap().jobs;
        let mut groups: Vec<String> = jobs.iter().map(|job| job.group.clone()).collect();
        groups.sort();
        assert!(jobs.iter().all(|job| job.job_id == submitted[job.group.as_str()].to_string()));
        groups
    };
    assert_eq!(listed("", false).await, [""], "a job without a group is in the root");
    assert_eq!(listed("", true).await, ["", "a", "a/b", "ab"]);
    assert_eq!(listed("a", false).await, ["a"]);
    assert_eq!(listed("a", true).await, ["a", "a/b"]);
    assert_eq!(listed("a/b", true).await, ["a/b"]);
}
