//! The count every Rust program here keeps of its answers, and the line it ends with.

use std::sync::atomic::{AtomicUsize, Ordering};

pub struct Tally {
    pub operations: usize,
    pub concurrency: usize,
    pub server: String,
    answered: AtomicUsize,
    wrong: AtomicUsize,
    files: usize,
}

fn told(name: &str) -> String {
    std::env::var(name).expect(name)
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

pub fn value_of(key: &str) -> String {
    format!("value-of-{key}")
}

impl Tally {
    pub fn new() -> Tally {
        Tally {
            operations: told("APP_OPERATIONS").parse().unwrap(),
            concurrency: told("APP_CONCURRENCY").parse().unwrap(),
            server: told("APP_SERVER"),
            answered: AtomicUsize::new(0),
            wrong: AtomicUsize::new(0),
            files: open_files(),
        }
    }

    /// An error leaves the key unanswered.
    pub fn count<E: std::fmt::Debug>(&self, key: &str, found: Result<String, E>) {
        match found {
            Ok(value) if value == value_of(key) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(value) => {
                self.wrong.fetch_add(1, Ordering::Relaxed);
                eprintln!("{key} has {value}");
            }
            Err(error) => eprintln!("{key}: {error:?}"),
        }
    }

    /// Ends the program with ANSWERED WRONG FDS, the last how many more files are open.
    pub fn end(&self) -> ! {
        let answered = self.answered.load(Ordering::Relaxed);
        let more = open_files() as isize - self.files as isize;
        println!("{} {} {}", answered, self.wrong.load(Ordering::Relaxed), more);
        std::process::exit(if answered == self.operations { 0 } else { 1 })
    }

    /// Calls `look_up` for every key, in as many threads as are wanted.
    #[allow(dead_code)]
    pub fn in_threads<E: std::fmt::Debug>(&self, look_up: impl Fn(&str) -> Result<String, E> + Sync) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            for _ in 0..self.concurrency {
                threads.spawn(|| loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= self.operations {
                        break;
                    }
                    let key = format!("key-{number}");
                    self.count(&key, look_up(&key));
                });
            }
        });
    }
}
