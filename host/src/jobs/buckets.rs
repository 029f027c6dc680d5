//! Which of the waiting jobs there is room for.

use std::collections::HashMap;

use super::Shared;
use crate::{
    database::jobs::{Bucket, Claimed},
    function::{FunctionName, QueueName},
};

/// The parts of the waiting jobs that there is room for, and that of what is claimed ahead.
pub(super) fn buckets(shared: &Shared, free: usize, ahead: usize) -> Vec<Bucket> {
    let mut buckets = free_buckets(shared, free);
    if ahead > 0 {
        let config = &shared.config;
        let except_queues = config.queues.iter().filter(|(_, queue)| queue.limit.is_some());
        let except_functions = config.functions.iter().filter(|(_, function)| function.limit.is_some());
        buckets.push(Bucket {
            queues: (!config.serve.is_empty()).then(|| config.serve.clone()),
            except_queues: except_queues.map(|(name, _)| name.clone()).collect(),
            except_functions: except_functions.map(|(name, _)| name.clone()).collect(),
            ahead: true,
            most: free + ahead,
            ..Bucket::default()
        });
    }
    buckets
}

fn free_buckets(shared: &Shared, free: usize) -> Vec<Bucket> {
    let config = &shared.config;
    let serve = (!config.serve.is_empty()).then(|| config.serve.clone());
    let limited_queues: Vec<(&QueueName, u64)> =
        config.queues.iter().filter_map(|(name, queue)| Some((name, queue.limit?))).collect();
    let limited_functions: Vec<(&FunctionName, u64)> =
        config.functions.iter().filter_map(|(name, function)| Some((name, function.limit?))).collect();
    if limited_queues.is_empty() && limited_functions.is_empty() {
        return vec![Bucket { queues: serve, most: free, ..Bucket::default() }];
    }
    let (mut queues, mut functions) = (HashMap::<_, u64>::new(), HashMap::<_, u64>::new());
    for attempt in shared.running() {
        *queues.entry(attempt.queue.clone()).or_default() += 1;
        *functions.entry(attempt.name.clone()).or_default() += 1;
    }
    let room = |limit: u64, held: Option<&u64>| {
        usize::try_from(limit.saturating_sub(held.copied().unwrap_or(0))).unwrap_or(usize::MAX).min(free)
    };
    let except_queues: Vec<_> = limited_queues.iter().map(|(name, _)| (*name).clone()).collect();
    let except_functions: Vec<_> = limited_functions.iter().map(|(name, _)| (*name).clone()).collect();
    // All that has no limit; each limited queue and function by itself; and one of each, where only one of the
    // pairs may go at a time, so that together they stay below both limits.
    let mut buckets = vec![Bucket {
        queues: serve.clone(),
        except_queues: except_queues.clone(),
        function: None,
        except_functions: except_functions.clone(),
        most: free,
        ..Bucket::default()
    }];
    let mut queue_room: Vec<_> =
        limited_queues.iter().map(|(name, limit)| ((*name).clone(), room(*limit, queues.get(*name)))).collect();
    queue_room.retain(|(name, _)| serve.as_ref().is_none_or(|serve| serve.contains(name)));
    let mut function_room: Vec<_> =
        limited_functions.iter().map(|(name, limit)| ((*name).clone(), room(*limit, functions.get(*name)))).collect();
    // What both a limited queue and a limited function hold comes first, and from both.
    for (queue, queue_left) in &mut queue_room {
        for (function, function_left) in &mut function_room {
            let most = (*queue_left / 2 + *queue_left % 2).min(*function_left / 2 + *function_left % 2);
            *queue_left -= most;
            *function_left -= most;
            buckets.push(Bucket {
                queues: Some(vec![queue.clone()]),
                function: Some(function.clone()),
                most,
                ..Bucket::default()
            });
        }
    }
    buckets.extend(queue_room.into_iter().map(|(queue, most)| Bucket {
        queues: Some(vec![queue]),
        except_functions: except_functions.clone(),
        most,
        ..Bucket::default()
    }));
    buckets.extend(function_room.into_iter().map(|(function, most)| Bucket {
        queues: serve.clone(),
        except_queues: except_queues.clone(),
        function: Some(function),
        most,
        ..Bucket::default()
    }));
    buckets.retain(|bucket| bucket.most > 0);
    buckets
}

/// Whether nothing is held up by a job that is claimed and does not begin. As the bucket of those asks for it.
pub(super) fn may_wait(shared: &Shared, job: &Claimed) -> bool {
    let config = &shared.config;
    let limited = config.queues.get(&job.queue).is_some_and(|queue| queue.limit.is_some())
        || config.functions.get(&job.name).is_some_and(|function| function.limit.is_some());
    !limited && !job.keyed && job.attempt < job.max_attempts
}
