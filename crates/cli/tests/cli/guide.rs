//! `docs/superclient.md`, word by word: files are written, commands are run,
//! what they say is compared, in the order of the page.
//!
//! A block's first line says what it is: `lua NAME` is a file, `lua` a script
//! that must load, `console` commands with what they print, `log` lines of the
//! running host. `[..]` stands for anything; `? N` is an exit code.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::DAYBOOK;

struct Guide {
    dir: tempfile::TempDir,
    /// Bus and host, instead of 7400 and 7500.
    ports: [u16; 2],
    running: Vec<Child>,
    log_read: usize,
}

impl Drop for Guide {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_guide_works_word_by_word() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/superclient.md");
    let text = std::fs::read_to_string(page).unwrap();
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (a, b) = (free(), free());
    let ports = [a.local_addr().unwrap().port(), b.local_addr().unwrap().port()];
    drop((a, b));
    let mut guide = Guide { dir: tempfile::tempdir().unwrap(), ports, running: Vec::new(), log_read: 0 };
    let mut examples = 0;
    for block in text.split("\n```").skip(1).step_by(2) {
        let (kind, body) = block.split_once('\n').unwrap();
        let body = body.replace("7400", &ports[0].to_string()).replace("7500", &ports[1].to_string());
        match kind.split_once(' ').unwrap_or((kind, "")) {
            ("lua", "") => {
                examples += 1;
                guide.example(&format!("example{examples}"), &body);
            }
            ("lua", name) => std::fs::write(guide.dir.path().join(name), body + "\n").unwrap(),
            ("console", _) => guide.console(&body),
            ("log", _) => guide.log(&body),
            other => panic!("a block of an unknown kind: {other:?}"),
        }
    }
    assert!(examples >= 2 && guide.running.len() == 2);
}

impl Guide {
    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("bash");
        let bin = Path::new(DAYBOOK).parent().unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let [bus, host] = self.ports;
        shell.arg("-c").arg(command).current_dir(self.dir.path()).env("PATH", path);
        shell.env("DAYBOOK_BUS", format!("http://127.0.0.1:{bus}"));
        shell.env("DAYBOOK_LISTEN", format!("127.0.0.1:{bus}"));
        shell.env("DAYBOOK_HOST", format!("http://127.0.0.1:{host}"));
        shell
    }

    fn console(&mut self, body: &str) {
        for part in body.split("$ ").skip(1) {
            let (command, expected) = part.split_once('\n').unwrap_or((part, ""));
            match command.strip_suffix(" &") {
                Some(command) => self.background(command),
                None => self.foreground(command, expected),
            }
        }
    }

    fn background(&mut self, command: &str) {
        let i = self.running.len();
        let log = File::create(self.dir.path().join(format!("log{i}"))).unwrap();
        let listen = if i == 1 { format!(" --listen 127.0.0.1:{}", self.ports[1]) } else { String::new() };
        let mut shell = self.shell(&format!("exec {command}{listen}"));
        self.running.push(shell.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.ports[i])).is_err() {
            assert!(begun.elapsed() < PATIENCE, "`{command}` does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn foreground(&self, command: &str, expected: &str) {
        let ran = self.shell(command).output().unwrap();
        let mut said = String::from_utf8_lossy(&ran.stdout).trim_end().to_owned();
        if let Some(code) = ran.status.code().filter(|code| *code != 0) {
            said += &format!("\n? {code}");
        }
        let (said, expected) = (said.trim(), expected.trim());
        let same = said.lines().count() == expected.lines().count()
            && said.lines().zip(expected.lines()).all(|(said, expected)| fits(expected, said));
        assert!(
            same,
            "$ {command}\nexpected:\n{expected}\nsaid:\n{said}\n{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }

    /// The lines come in the host's log, in this order, after what was compared before.
    fn log(&mut self, body: &str) {
        let begun = Instant::now();
        loop {
            let log = std::fs::read_to_string(self.dir.path().join("log1")).unwrap();
            let lines: Vec<&str> = log.lines().collect();
            let mut at = self.log_read;
            let mut wanted = body.trim_end().lines().peekable();
            while let (Some(expected), Some(line)) = (wanted.peek(), lines.get(at)) {
                // The first line of a message has a time before it.
                if fits(expected, line) || fits(&format!("[..] script: {expected}"), line) {
                    wanted.next();
                }
                at += 1;
            }
            if wanted.peek().is_none() {
                self.log_read = at;
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "never said: {:?}\nthe log:\n{log}", wanted.peek());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A script that stands for itself but for its first line.
    fn example(&self, name: &str, body: &str) {
        let dir = self.dir.path().join("examples");
        std::fs::create_dir_all(&dir).unwrap();
        let script = format!("local svc = service(\"{name}\", {{ version = 1 }})\n{body}\n");
        std::fs::write(dir.join(format!("{name}.lua")), script).unwrap();
        std::fs::write(dir.join(format!("{name}_test.lua")), "test('it loads', function() end)").unwrap();
        self.foreground(&format!("daybook test examples/{name}.lua | tail -1"), "1 passed, 0 failed");
    }
}

/// Whether the line is as expected, where `[..]` stands for anything.
fn fits(expected: &str, line: &str) -> bool {
    let mut parts = expected.split("[..]");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
