//! Sums up the columns of a CSV text: `{"csv": "city,people\nOslo,709037\n"}` in; for each column how
//! many values it has, how many of them differ, the least, the greatest and, of numbers, the mean out.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sharpfaas::Error;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    /// The text; its first line names the columns.
    csv: String,
    /// What stands between the values.
    #[serde(default = "comma")]
    delimiter: char,
}

fn comma() -> char {
    ','
}

#[derive(Debug, PartialEq, Serialize)]
struct Summary {
    rows: u64,
    columns: Vec<Column>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Column {
    name: String,
    /// Values that are there; the rest are empty.
    count: u64,
    empty: u64,
    distinct: usize,
    #[serde(flatten)]
    values: Values,
}

/// A column is of numbers when all that stands in it is one.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Values {
    Nothing,
    Number { min: f64, max: f64, mean: f64 },
    Text { min: String, max: String },
}

#[sharpfaas::function]
fn summarise(request: Request) -> Result<Summary, Error> {
    let delimiter = u8::try_from(request.delimiter)
        .map_err(|_| Error::new(format!("delimiter '{}' must be one ASCII character", request.delimiter)))?;
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(request.csv.as_bytes());
    let mut columns: Vec<Gathered> = reader.headers()?.iter().map(Gathered::new).collect();
    let mut rows = 0;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        rows += 1;
        for (column, value) in columns.iter_mut().zip(&record) {
            column.add(value.trim());
        }
    }
    println!("{rows} rows, {} columns", columns.len());
    Ok(Summary { rows, columns: columns.into_iter().map(Gathered::finish).collect() })
}

/// What is known of a column so far.
struct Gathered {
    name: String,
    count: u64,
    empty: u64,
    distinct: BTreeSet<String>,
    /// Least, greatest and sum, while all values were numbers.
    numbers: Option<(f64, f64, f64)>,
}

impl Gathered {
    fn new(name: &str) -> Self {
        let numbers = Some((f64::INFINITY, f64::NEG_INFINITY, 0.0));
        Self { name: name.trim().to_owned(), count: 0, empty: 0, distinct: BTreeSet::new(), numbers }
    }

    fn add(&mut self, value: &str) {
        if value.is_empty() {
            self.empty += 1;
            return;
        }
        self.count += 1;
        self.numbers = self.numbers.and_then(|(min, max, sum)| {
            // JSON has no NaN and no infinity: they count as text.
            let number = value.parse().ok().filter(|number: &f64| number.is_finite())?;
            Some((min.min(number), max.max(number), sum + number))
        });
        if !self.distinct.contains(value) {
            self.distinct.insert(value.to_owned());
        }
    }

    fn finish(self) -> Column {
        let values = match (self.numbers, self.distinct.first(), self.distinct.last()) {
            (Some((min, max, sum)), Some(_), Some(_)) => Values::Number { min, max, mean: sum / self.count as f64 },
            (None, Some(min), Some(max)) => Values::Text { min: min.clone(), max: max.clone() },
            _ => Values::Nothing,
        };
        Column { name: self.name, count: self.count, empty: self.empty, distinct: self.distinct.len(), values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(csv: &str) -> Result<Summary, Error> {
        summarise(Request { csv: csv.into(), delimiter: ',' })
    }

    #[test]
    fn numbers_and_texts_are_told_apart() {
        let summary = of("city,people,note\nOslo,10,\nBergen,20,\nOslo,,\n").unwrap();
        assert_eq!(summary.rows, 3);
        let [city, people, note] = &summary.columns[..] else { panic!("{summary:?}") };
        assert_eq!((city.count, city.distinct), (3, 2));
        assert_eq!(city.values, Values::Text { min: "Bergen".into(), max: "Oslo".into() });
        assert_eq!((people.count, people.empty), (2, 1));
        assert_eq!(people.values, Values::Number { min: 10.0, max: 20.0, mean: 15.0 });
        assert_eq!(note.values, Values::Nothing);
    }

    #[test]
    fn a_row_of_another_length_is_an_error_that_names_its_line() {
        let error = of("a,b\n1,2\n3\n").unwrap_err().to_string();
        assert!(error.contains("line: 3"), "{error}");
    }
}
