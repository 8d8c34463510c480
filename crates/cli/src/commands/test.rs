//! `daybook test`: the tests beside the scripts, each on a bus of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use daybook_model::Timestamp;
use daybook_superclient::{CrashPoint, Run, TestFile};

use crate::exit::Failure;

/// Run the tests of Lua services: `NAME_test.lua` beside `NAME.lua`.
#[derive(clap::Args)]
pub struct Args {
    /// A directory, or one script or test file.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Only tests whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Also write the results as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

const SUFFIX: &str = "_test.lua";

struct Done {
    file: String,
    name: String,
    took: Duration,
    /// Runs with a crash, after the one without.
    crashes: usize,
    failure: Option<String>,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let files = find(&args.path)?;
    let mut done = Vec::new();
    let mut out = std::io::stdout().lock();
    for file in files {
        writeln!(out, "{}", file.tests.display())?;
        let names = file.names().map_err(|error| Failure::failed(error.to_string()))?;
        for (i, name) in names.into_iter().enumerate() {
            if args.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
                continue;
            }
            let test = one(&file, i, name).await?;
            let crashes = match test.crashes {
                0 => String::new(),
                crashes => format!(", {crashes} crashes"),
            };
            match &test.failure {
                None => writeln!(out, "  ok    {} ({} ms{crashes})", test.name, test.took.as_millis())?,
                Some(why) => {
                    writeln!(out, "  FAIL  {}", test.name)?;
                    why.lines().try_for_each(|line| writeln!(out, "          {line}"))?;
                }
            }
            done.push(test);
        }
    }
    if let Some(path) = &args.junit {
        std::fs::write(path, junit(&done))?;
    }
    let failed = done.iter().filter(|test| test.failure.is_some()).count();
    writeln!(out, "{} passed, {failed} failed", done.len() - failed)?;
    match failed {
        0 => Ok(()),
        _ => Err(Failure::failed("")),
    }
}

/// Runs the tests beside a script, if there are any, before it takes over.
pub async fn beside(script: PathBuf) -> Result<(), String> {
    let tests = PathBuf::from(script.to_string_lossy().replace(".lua", SUFFIX));
    if !tests.exists() {
        return Ok(());
    }
    let file = TestFile { script, tests };
    let names = file.names().map_err(|error| error.to_string())?;
    let (all, mut failed) = (names.len(), Vec::new());
    for (i, name) in names.into_iter().enumerate() {
        let test = one(&file, i, name).await.map_err(|failure| failure.message)?;
        failed.extend(test.failure.map(|why| format!("{}\n  {}", test.name, why.replace('\n', "\n  "))));
    }
    match failed.first() {
        None => Ok(()),
        Some(first) => {
            Err(format!("{}: {} of {all} tests failed, first: {first}", file.tests.display(), failed.len()))
        }
    }
}

/// One test: without a crash, then with each that it asks for.
async fn one(file: &TestFile, i: usize, name: String) -> Result<Done, Failure> {
    let begun = Instant::now();
    let run = on_a_new_bus(file, i, None).await?;
    let mut failure = run.failed;
    let mut crashes = 0;
    for point in run.crash_points {
        if failure.is_some() {
            break;
        }
        let told = point.to_string();
        let again = on_a_new_bus(file, i, Some(point)).await?;
        failure = again.failed.map(|why| format!("with {told}: {why}"));
        crashes += 1;
    }
    let file = file.tests.display().to_string();
    Ok(Done { file, name, took: begun.elapsed(), crashes, failure })
}

/// A bus in memory for one run.
async fn on_a_new_bus(file: &TestFile, i: usize, crash: Option<CrashPoint>) -> Result<Run, Failure> {
    let clock = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    };
    let store = Arc::new(daybook_store::memory::MemoryStore::new(clock));
    let config = daybook_server::Config::new(PathBuf::new()).listen(([127, 0, 0, 1], 0).into());
    let server = daybook_server::start_with(config, store).await;
    let server = server.map_err(|error| Failure::failed(error.to_string()))?;
    let bus = format!("http://{}", server.local_addr());
    // Scripts live on one thread; the others go on.
    let file = file.clone();
    let outcome = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok::<_, std::io::Error>(runtime.block_on(file.run(i, &bus, crash.as_ref())))
    });
    let outcome = outcome.await.map_err(|error| Failure::failed(error.to_string()))??;
    server.shutdown().await;
    outcome.map_err(|error| Failure::failed(error.to_string()))
}

fn find(path: &Path) -> Result<Vec<TestFile>, Failure> {
    let tests: Vec<PathBuf> = if path.is_dir() {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(SUFFIX) {
                found.push(path);
            }
        }
        found.sort();
        found
    } else if path.to_string_lossy().ends_with(SUFFIX) {
        vec![path.to_owned()]
    } else {
        vec![PathBuf::from(path.to_string_lossy().replace(".lua", SUFFIX))]
    };
    if tests.is_empty() {
        return Err(Failure::failed(format!("no *{SUFFIX} in {}", path.display())));
    }
    let of =
        |tests: PathBuf| TestFile { script: tests.to_string_lossy().replace(SUFFIX, ".lua").into(), tests };
    Ok(tests.into_iter().map(of).collect())
}

fn junit(done: &[Done]) -> String {
    let escaped = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let failed = done.iter().filter(|test| test.failure.is_some()).count();
    let mut text = format!("<testsuite name=\"daybook\" tests=\"{}\" failures=\"{failed}\">\n", done.len());
    for test in done {
        let (file, name, seconds) = (escaped(&test.file), escaped(&test.name), test.took.as_secs_f64());
        text += &format!("  <testcase classname=\"{file}\" name=\"{name}\" time=\"{seconds:.3}\"");
        match &test.failure {
            None => text += "/>\n",
            Some(why) => text += &format!("><failure>{}</failure></testcase>\n", escaped(why)),
        }
    }
    text + "</testsuite>\n"
}
