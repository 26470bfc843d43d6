//! Figures: `cargo test -p runtime --test figures -- --nocapture`.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{World, world};

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let ms = |at: usize| times[at.min(times.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "{what}: p50 {:.1} ms, p90 {:.1} ms, max {:.1} ms",
        ms(times.len() / 2),
        ms(times.len() * 9 / 10),
        ms(usize::MAX)
    );
}

/// Proportional and private memory of a process, in KiB.
fn memory(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("Pss:"), field("Private_Dirty:") + field("Private_Clean:"))
}

fn shims(w: &World) {
    let all: Vec<_> = w.runtime.sandboxes().iter().filter_map(|s| s.shim_pid).map(memory).collect();
    let sum = |of: fn(&(u64, u64)) -> u64| all.iter().map(of).sum::<u64>() / all.len() as u64;
    println!("{} shims: PSS {} KiB each, private {} KiB each", all.len(), sum(|m| m.0), sum(|m| m.1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures() {
    let Some(w) = world().await else { return };
    let (mut sandboxes, mut containers, mut both, mut ends, mut execs, mut removals) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..30 {
        let id = format!("s{number}");
        let begin = Instant::now();
        w.runtime.run_sandbox(w.sandbox(&id)).await.unwrap();
        sandboxes.push(begin.elapsed());
        let middle = Instant::now();
        let status = w.runtime.start_container(&id, w.command(&id, &["true"])).await.unwrap();
        containers.push(middle.elapsed());
        both.push(begin.elapsed());
        w.ended(&status.id).await;
        ends.push(begin.elapsed());
        let begin = Instant::now();
        w.runtime.remove_sandbox(&id).await.unwrap();
        removals.push(begin.elapsed());
    }
    print("sandbox", sandboxes);
    print("container", containers);
    print("both", both);
    print("both, until `true` has ended", ends);
    print("removal", removals);

    let begin = Instant::now();
    for number in 0..50 {
        let id = format!("p{number}");
        w.runtime.run_sandbox(w.sandbox(&id)).await.unwrap();
        w.runtime.start_container(&id, w.command(&id, &["sleep", "1000"])).await.unwrap();
        if number == 9 {
            shims(&w);
        }
    }
    println!("50 pods, one after the other: {:?}", begin.elapsed());
    shims(&w);
    let id = w.runtime.containers("p0")[0].id.clone();
    for _ in 0..30 {
        let begin = Instant::now();
        w.runtime.exec_sync(&id, vec!["true".into()], None).await.unwrap();
        execs.push(begin.elapsed());
    }
    print("exec", execs);
    shims(&w);
    w.end().await;
}
