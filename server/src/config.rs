//! Settings: a flag wins over its HOLDFAST_* variable, which wins over the TOML file, which wins over the default.
//!
//! The file's keys are the flags' names. Its values are given to the same parser as the flags, so that each setting has
//! one description and one check. The table `[s3]` holds what the AWS_* variables would.

use std::{ffi::OsString, fs, io::Write, path::Path, process::ExitCode, str::FromStr};

use clap::{ArgMatches, Command, parser::ValueSource};

/// Bytes, written `4096`, `32M`, `1G` (powers of 1024; `K`, `M`, `G`, `T`, also `KiB`, `MB`, ...).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim().to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            "T" | "TB" | "TIB" => 40,
            _ => return Err(format!("`{text}` is no size: write bytes, or a number with K, M, G or T, such as 32M")),
        };
        let number: u64 = number
            .parse()
            .map_err(|_| format!("`{text}` is no size: it must start with a whole number, such as 32M"))?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(|| format!("`{text}` is more than 2^64 bytes"))
    }
}

/// The value of `[s3]`: AWS_* settings by name, in the order of the file.
pub type S3Settings = Vec<(String, String)>;

/// Keys of `[s3]` and the variables that they stand for.
const S3_KEYS: [(&str, &str); 6] = [
    ("endpoint", "AWS_ENDPOINT_URL"),
    ("region", "AWS_REGION"),
    ("access-key-id", "AWS_ACCESS_KEY_ID"),
    ("secret-access-key", "AWS_SECRET_ACCESS_KEY"),
    ("session-token", "AWS_SESSION_TOKEN"),
    ("virtual-hosted-style", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"),
];

/// A command line or file that is refused, or a request for help.
#[derive(Debug)]
pub enum Refused {
    /// What clap says, help and version included.
    Flags(clap::Error),
    /// What is wrong with the file, which is named.
    File(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flags(error) => write!(f, "{}", error.render()),
            Self::File(text) => f.write_str(text),
        }
    }
}

impl Refused {
    /// Prints it where it belongs (help to stdout, errors to stderr) and gives the exit code.
    pub fn print(self) -> ExitCode {
        match self {
            Self::Flags(error) => error.exit(),
            Self::File(text) => {
                // Nothing is left to do if stderr is gone.
                let _ = writeln!(std::io::stderr(), "holdfast: error: {text}");
                ExitCode::from(2)
            }
        }
    }
}

/// Parses `arguments`, then, if they or the environment name a file with `--config`, once more with the file's settings
/// behind them.
pub fn parse(command: Command, arguments: Vec<OsString>) -> Result<(ArgMatches, S3Settings), Refused> {
    let matches = command.clone().try_get_matches_from(&arguments).map_err(Refused::Flags)?;
    let Some((name, serve)) = matches.subcommand() else { return Ok((matches, Vec::new())) };
    let Some(path) = serve.try_get_one::<std::path::PathBuf>("config").ok().flatten().cloned() else {
        return Ok((matches, Vec::new()));
    };
    let Some(description) = command.find_subcommand(name).cloned() else { return Ok((matches, Vec::new())) };
    let (more, s3) =
        file_arguments(&path, &description, serve).map_err(|e| Refused::File(format!("{}: {e}", path.display())))?;
    let mut all = arguments;
    all.extend(more);
    let matches = command
        .try_get_matches_from(all)
        .map_err(|e| Refused::File(format!("{}: {}", path.display(), strip(&e.render().to_string()))))?;
    Ok((matches, s3))
}

fn strip(text: &str) -> &str {
    text.strip_prefix("error: ").unwrap_or(text)
}

/// The file's settings as flags, leaving out those that a flag or variable sets.
fn file_arguments(path: &Path, command: &Command, set: &ArgMatches) -> Result<(Vec<OsString>, S3Settings), String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let known: Vec<&str> = command
        .get_arguments()
        .filter_map(|arg| arg.get_long())
        .filter(|name| !matches!(*name, "config" | "help" | "version"))
        .chain(["s3"])
        .collect();
    let (mut arguments, mut s3) = (Vec::new(), Vec::new());
    for (key, value) in &table {
        if key == "s3" {
            s3 = s3_settings(value)?;
            continue;
        }
        if !known.contains(&key.as_str()) {
            return Err(unknown(key, known.iter().copied()));
        }
        let id = key.replace('-', "_");
        let source = set.try_contains_id(&id).unwrap_or(false).then(|| set.value_source(&id)).flatten();
        if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let is_switch = command
            .get_arguments()
            .any(|arg| arg.get_long() == Some(key) && matches!(arg.get_action(), clap::ArgAction::SetTrue));
        match (is_switch, value) {
            (true, toml::Value::Boolean(false)) => {}
            (true, toml::Value::Boolean(true)) => arguments.push(format!("--{key}").into()),
            (true, _) => return Err(format!("`{key}` must be true or false")),
            (false, value) => arguments.push(format!("--{key}={}", scalar(key, value)?).into()),
        }
    }
    Ok((arguments, s3))
}

fn s3_settings(value: &toml::Value) -> Result<S3Settings, String> {
    let toml::Value::Table(table) = value else { return Err("`s3` must be a table".to_owned()) };
    let known = || S3_KEYS.iter().map(|(key, _)| *key);
    table
        .iter()
        .map(|(key, value)| {
            let variable = S3_KEYS.iter().find(|(name, _)| name == key).map(|(_, variable)| *variable);
            let variable = variable.ok_or_else(|| format!("in [s3]: {}", unknown(key, known())))?;
            Ok((variable.to_owned(), scalar(key, value)?))
        })
        .collect()
}

fn scalar(key: &str, value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(n) => Ok(n.to_string()),
        toml::Value::Float(n) => Ok(n.to_string()),
        toml::Value::Boolean(b) => Ok(b.to_string()),
        _ => Err(format!("`{key}` must be a single value")),
    }
}

fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.min_by_key(|name| distance(key, name)).unwrap_or_default();
    format!("unknown setting `{key}`; the nearest one is `{nearest}`")
}

/// Edits (insert, delete, replace) between two short names.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let next = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            (diagonal, left) = (*cell, next);
            *cell = next;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("32M", 32 << 20), ("1g", 1 << 30), ("2 KiB", 2048), ("1T", 1 << 40)]
        {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "3X", "99999999999999999999", "99999999T"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn distances() {
        assert_eq!((distance("lisen", "listen"), distance("", "abc"), distance("kitten", "sitting")), (1, 3, 3));
        assert_eq!(
            unknown("memory-cash", ["listen", "memory-cache", "store"].into_iter()),
            "unknown setting `memory-cash`; the nearest one is `memory-cache`"
        );
    }
}
