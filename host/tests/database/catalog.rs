//! Functions and versions.

use sharpfaas_host::{database::Database, function::FunctionType};

use super::{lane, name, pushed, version};

pub async fn the_newest_is_by_number(database: &Database) {
    let minors: Vec<_> = (0..=12).map(|minor| pushed("f", "dev", 1, minor)).collect();
    database.insert_versions(&minors).await.expect("inserted");
    let (f, dev) = (name("f"), lane("dev"));
    // By number, not by text, in which 1.9 comes after 1.12.
    assert_eq!(database.newest(&f, &dev, None).await, Ok(minors.last().cloned()));
    let next_major = [pushed("f", "dev", 2, 0), pushed("f", "dev", 10, 0), pushed("f", "production", 11, 0)];
    database.insert_versions(&next_major).await.expect("inserted");
    assert_eq!(database.newest(&f, &dev, None).await, Ok(Some(next_major[1].clone())));
    assert_eq!(database.newest(&f, &dev, Some(1)).await, Ok(minors.last().cloned()));
    assert_eq!(database.newest(&f, &dev, Some(3)).await, Ok(None));
    assert_eq!(database.newest(&f, &lane("test"), None).await, Ok(None));
    assert_eq!(database.newest(&name("F"), &dev, None).await, Ok(None));
    assert_eq!(database.version(&minors[7].location).await, Ok(Some(minors[7].clone())));
    assert_eq!(database.version(&pushed("f", "dev", 1, 13).location).await, Ok(None));
    let production = database.versions_of(&f, Some(&lane("production")), 10).await;
    assert_eq!(production, Ok(vec![next_major[2].clone()]));
    let all = database.versions_of(&f, None, 3).await.expect("versions");
    let all: Vec<_> = all.iter().map(|it| it.location.to_string()).collect();
    assert_eq!(all, ["dev/10.0/f", "dev/2.0/f", "dev/1.12/f"]);
}

pub async fn inserting_again_changes_nothing_and_another_push_replaces(database: &Database) {
    let first = pushed("f", "dev", 1, 0);
    database.insert_versions([&first]).await.expect("inserted");
    // The same push, told differently: what was known stays.
    let mut again = first.clone();
    again.size = 1;
    database.insert_versions([&again]).await.expect("no error");
    assert_eq!(database.version(&first.location).await, Ok(Some(first.clone())));
    // Another push at the same place: the store is the truth.
    let mut other = pushed("f", "dev", 1, 0);
    (other.size, other.pushed_by) = (2, None);
    database.insert_versions([&other, &other]).await.expect("no error");
    assert_eq!(database.version(&first.location).await, Ok(Some(other)));
    assert_eq!(database.count_versions().await, Ok(1));
    // Texts that one database takes and the other does not.
    let mut odd = pushed("f", "dev", 1, 1);
    odd.pushed_by = Some("a\0b".into());
    database.insert_versions([&odd]).await.expect("no error");
    odd.pushed_by = Some("a\u{fffd}b".into());
    assert_eq!(database.version(&odd.location).await, Ok(Some(odd)));
}

pub async fn thousands_of_versions_go_in_at_once(database: &Database) {
    assert_eq!(database.count_versions().await, Ok(0));
    let many: Vec<_> = (0..2500)
        .map(|i| pushed(&format!("f{}", i % 7), if i % 2 == 0 { "dev" } else { "production" }, 1, i))
        .collect();
    database.insert_versions(&many).await.expect("inserted");
    database.insert_versions(&many).await.expect("inserted again");
    assert_eq!(database.count_versions().await, Ok(2500));
    assert_eq!(database.version(&many[1999].location).await, Ok(Some(many[1999].clone())));
    database.insert_versions([]).await.expect("nothing is no error");
}

pub async fn functions_come_in_pages(database: &Database) {
    let mut versions = vec![pushed("c", "dev", 1, 0), pushed("a", "production", 1, 0)];
    versions.extend([(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)].map(|(major, minor)| pushed("a", "dev", major, minor)));
    let mut exe = pushed("b", "dev", 1, 0);
    exe.kind = FunctionType::Exe;
    versions.push(exe);
    database.insert_versions(&versions).await.expect("inserted");

    let page = database.functions(None, 2).await.expect("functions");
    let names: Vec<_> = page.iter().map(|it| (it.name.as_str(), it.kind)).collect();
    assert_eq!(names, [("a", FunctionType::Dll), ("b", FunctionType::Exe)]);
    let lanes: Vec<_> = page[0].lanes.iter().map(|it| (it.lane.as_str(), it.newest, it.versions)).collect();
    assert_eq!(lanes, [("dev", version(2, 1), 5), ("production", version(1, 0), 1)]);

    let next = database.functions(Some(&page[1].name), 2).await.expect("functions");
    assert_eq!(next.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["c"]);
    assert_eq!(database.functions(Some(&next[0].name), 2).await, Ok(vec![]));
    assert_eq!(database.function(&name("a")).await, Ok(Some(page[0].clone())));
    assert_eq!(database.function(&name("d")).await, Ok(None));
}

pub async fn namesakes_differ_in_case_alone(database: &Database) {
    let versions = [pushed("Tax", "dev", 1, 0), pushed("taxi", "dev", 1, 0)];
    database.insert_versions(&versions).await.expect("inserted");
    let tax = vec![(name("Tax"), FunctionType::Dll)];
    assert_eq!(database.namesakes(&name("Tax")).await, Ok(tax.clone()));
    assert_eq!(database.namesakes(&name("tAX")).await, Ok(tax));
    assert_eq!(database.namesakes(&name("ta")).await, Ok(vec![]));
    // Two servers may have taken one each at the same moment: both are in the store, so both are here.
    database.insert_versions([&pushed("tax", "dev", 1, 0)]).await.expect("inserted");
    assert_eq!(database.namesakes(&name("tax")).await.map(|all| all.len()), Ok(2));
}

pub async fn folders_and_lanes_are_known(database: &Database) {
    let versions =
        [pushed("a", "dev", 1, 0), pushed("b", "dev", 1, 0), pushed("a", "dev", 1, 1), pushed("c", "production", 1, 0)];
    database.insert_versions(&versions).await.expect("inserted");
    assert_eq!(database.known(&lane("dev"), version(1, 0)).await, Ok([name("a"), name("b")].into()));
    assert_eq!(database.known(&lane("dev"), version(1, 1)).await, Ok([name("a")].into()));
    assert_eq!(database.known(&lane("dev"), version(2, 0)).await, Ok([].into()));
    assert_eq!(database.lanes().await, Ok(vec![lane("dev"), lane("production")]));
}
