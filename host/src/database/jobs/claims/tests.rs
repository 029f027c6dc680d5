use tempfile::TempDir;

use super::*;
use crate::{
    config::DatabaseConfig,
    database::jobs::{Change, From, NewJob, Success},
    function::ContinueOn,
};

struct Fixture {
    database: Database,
    server: Uuid,
    _folder: TempDir,
}

const LEASE: Duration = Duration::from_secs(60);

/// Where what waits for a job goes; here nothing does.
fn stays(_: JobState, _: ContinueOn, first: JobState) -> JobState {
    first
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("x.db").display());
        let config = DatabaseConfig { url, ..DatabaseConfig::default() };
        let database = Database::connect(&config, None).await.expect("a database");
        let server = Uuid::now_v7();
        database.register_server(server, "here", LEASE, 8, &[]).await.expect("registered");
        Self { database, server, _folder: folder }
    }

    async fn enqueue(&self, change: impl FnOnce(&mut NewJob)) -> JobId {
        let mut job = NewJob {
            id: JobId::generate(),
            state: JobState::Enqueued,
            run_at: None,
            queue: "default".parse().expect("a queue"),
            priority: 0,
            name: "hello".parse().expect("a name"),
            lane: "dev".parse().expect("a lane"),
            selector: Selector::Latest,
            kind: None,
            entry: None,
            caller_id: None,
            token: None,
            payload: "null".into(),
            parameters: Vec::new(),
            deadline: None,
            max_attempts: 10,
            delays: None,
            at_end: JobState::Failed,
            mutex: None,
            after: None,
            batch: None,
            schedule: None,
            tick: None,
            idempotency_key: None,
        };
        change(&mut job);
        self.database.enqueue("here", std::slice::from_ref(&job)).await.expect("written");
        job.id
    }

    async fn claim(&self, buckets: &[Bucket], places: usize, most: usize) -> Vec<Claimed> {
        let claim = Claim { server: self.server, node: "here", places, most, buckets, pins: &[], mutexes: true };
        self.database.claim(&claim).await.expect("claimed").0
    }

    async fn state(&self, id: JobId) -> JobState {
        self.database.job(id).await.expect("an answer").expect("a job").job.state
    }
}

fn ids(claimed: &[Claimed]) -> Vec<JobId> {
    claimed.iter().map(|it| it.id).collect()
}

fn success(server: Uuid, job: &Claimed) -> Success {
    Success { id: job.id, server, claim: job.claim, version: None }
}

#[tokio::test]
async fn what_would_hold_others_up_is_not_claimed_ahead() {
    let fixture = Fixture::new().await;
    let keyed = fixture.enqueue(|job| job.mutex = Some(("key".into(), 1))).await;
    let last = fixture.enqueue(|job| job.max_attempts = 1).await;
    let (first, second) = (fixture.enqueue(|_| {}).await, fixture.enqueue(|_| {}).await);
    let urgent = fixture.enqueue(|job| job.priority = 5).await;
    let ahead = Bucket { ahead: true, most: 3, ..Bucket::default() };
    // One place for the first in line, whatever it is, and what may wait; each once, though both fit the urgent one.
    let buckets = [Bucket { most: 1, ..Bucket::default() }, ahead.clone()];
    let claimed = fixture.claim(&buckets, 1, 3).await;
    assert_eq!(ids(&claimed), [urgent, first, second]);
    assert_eq!(fixture.claim(&[ahead], 0, 3).await.len(), 0, "what is left may not wait");
    let claimed = fixture.claim(&[Bucket { most: 3, ..Bucket::default() }], 3, 3).await;
    assert_eq!(ids(&claimed), [keyed, last]);
    assert_eq!(claimed.iter().map(|it| it.keyed).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test]
async fn of_what_is_not_claimed_ahead_no_more_is_taken_than_there_are_places() {
    let fixture = Fixture::new().await;
    let [one, two, other] = ["one", "two", "other"].map(|queue| queue.parse::<QueueName>().expect("a queue"));
    let mut expected = Vec::new();
    for queue in [&one, &two, &other, &other] {
        expected.push(fixture.enqueue(|job| job.queue = queue.clone()).await);
    }
    let of = |queue: &QueueName| Bucket { queues: Some(vec![queue.clone()]), most: 1, ..Bucket::default() };
    let ahead = Bucket { ahead: true, most: 3, except_queues: vec![one.clone(), two.clone()], ..Bucket::default() };
    let claimed = fixture.claim(&[of(&one), of(&two), ahead], 1, 3).await;
    expected.remove(1);
    assert_eq!(ids(&claimed), expected, "two queues had room for one each, but there was one place");
}

#[tokio::test]
async fn a_key_holds_while_a_job_with_it_is_claimed() {
    let fixture = Fixture::new().await;
    for _ in 0..3 {
        fixture.enqueue(|job| job.mutex = Some(("key".into(), 2))).await;
    }
    let buckets = [Bucket { most: 8, ..Bucket::default() }, Bucket { ahead: true, most: 8, ..Bucket::default() }];
    let claimed = fixture.claim(&buckets, 8, 16).await;
    assert_eq!(claimed.len(), 2);
    assert_eq!(fixture.claim(&buckets, 8, 16).await.len(), 0);
}

#[tokio::test]
async fn success_is_written_at_once_where_nothing_follows_from_it() {
    let fixture = Fixture::new().await;
    let plain = fixture.enqueue(|_| {}).await;
    let keyed = fixture.enqueue(|job| job.mutex = Some(("key".into(), 1))).await;
    let (before, gone) = (fixture.enqueue(|_| {}).await, fixture.enqueue(|_| {}).await);
    let claimed = fixture.claim(&[Bucket { most: 8, ..Bucket::default() }], 8, 8).await;
    assert_eq!(ids(&claimed), [plain, keyed, before, gone]);
    // Another one waits for one of them, and one was given up meanwhile.
    let after = NewJob { after: Some((before, ContinueOn::Succeeded)), ..fixture.job(before).await };
    let after = NewJob { id: JobId::generate(), ..after };
    let awaiting = |_: &NewJob, _| JobState::Awaiting;
    fixture.database.enqueue_after("here", None, vec![after], awaiting).await.expect("written");
    let deleted = Change::new(gone, From::State(JobState::Processing), JobState::Deleted);
    fixture.database.change("here", LEASE, &[deleted], stays).await.expect("changed");

    let wrong_claim = Success { claim: 2, ..success(fixture.server, &claimed[0]) };
    let wrong_server = success(Uuid::now_v7(), &claimed[0]);
    for wrong in [wrong_claim, wrong_server] {
        assert!(fixture.database.succeed("here", LEASE, &[wrong]).await.expect("asked").is_empty());
    }
    let all: Vec<_> = claimed.iter().map(|job| success(fixture.server, job)).collect();
    let done = fixture.database.succeed("here", LEASE, &all).await.expect("written");
    assert_eq!(done.into_iter().collect::<Vec<_>>(), [plain]);
    let row = fixture.database.job(plain).await.expect("an answer").expect("a job");
    assert_eq!((row.job.state, row.history.len()), (JobState::Succeeded, 3));
    assert!(row.expires_at.is_some());
    for (id, state) in [(keyed, JobState::Processing), (before, JobState::Processing), (gone, JobState::Deleted)] {
        assert_eq!(fixture.state(id).await, state);
    }
    assert!(fixture.database.succeed("here", LEASE, &all).await.expect("asked").is_empty(), "once is all");
}

impl Fixture {
    async fn job(&self, id: JobId) -> NewJob {
        self.database.job(id).await.expect("an answer").expect("a job").job
    }
}
