//! Counts the words of a text, as a native program: `{"text": "to be or not to be"}` in.
//!
//! A program of type `exe` gets its payload as its first argument, or where that is `-`, because one
//! argument cannot hold it, on standard input alone. What it prints on standard output is its result, and
//! standard error is for what is only to be watched. Ending with another code than 0 says that it failed.

use std::{collections::BTreeMap, env, error::Error, io, process::ExitCode};

use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Request {
    text: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Count<'a> {
    lines: usize,
    words: usize,
    characters: usize,
    /// The five words that stand there most often; of equally frequent ones the first in the alphabet.
    frequent: Vec<(&'a str, usize)>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let payload = match env::args().nth(1) {
        Some(argument) if argument != "-" => argument,
        _ => io::read_to_string(io::stdin())?,
    };
    let request: Request = serde_json::from_str(&payload)
        .map_err(|error| format!(r#"the payload must be an object as in {{"text": "…"}}: {error}"#))?;
    eprintln!("counting {} bytes", request.text.len());
    println!("{}", serde_json::to_string(&count(&request.text))?);
    Ok(())
}

fn count(text: &str) -> Count<'_> {
    let mut words: BTreeMap<&str, usize> = BTreeMap::new();
    for word in text.split_whitespace() {
        *words.entry(word).or_default() += 1;
    }
    let total = words.values().sum();
    let mut frequent: Vec<(&str, usize)> = words.into_iter().collect();
    frequent.sort_by_key(|&(_, times)| std::cmp::Reverse(times));
    frequent.truncate(5);
    Count { lines: text.lines().count(), words: total, characters: text.chars().count(), frequent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let count = count("to be or\nnot to be");
        assert_eq!((count.lines, count.words, count.characters), (2, 6, 18));
        assert_eq!(count.frequent, [("be", 2), ("to", 2), ("not", 1), ("or", 1)]);
    }
}
