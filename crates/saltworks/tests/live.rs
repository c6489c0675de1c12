//! report.html and `saltworks serve`, of real runs.

mod place;

use place::{Place, assert_refused, saltworks, stderr};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The data inside a page.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn a_run_leaves_a_report_with_all_its_curves() {
    let place = Place::with_classes();
    place.trained("run", &["tags=[\"one\", \"</script>\"]"]);
    let page = String::from_utf8(place.bytes("run/report.html")).unwrap();
    let runs = data(&page);
    let run = &runs["runs"][0];
    assert_eq!((&run["status"], &run["tags"][1]), (&"finished".into(), &"</script>".into()));
    for stage in 0..2 {
        let stage = &run["stages"][stage];
        assert_eq!(stage["series"]["step"].as_array().unwrap().len(), 3);
        let probes = stage["probes"].as_array().unwrap();
        assert_eq!((&probes[0]["step"], &probes[probes.len() - 1]["step"]), (&0.into(), &3.into()));
    }
    assert_eq!(run["table"].as_array().unwrap().len(), 4);
    // A report made later has the same data.
    let output = saltworks().arg("report").arg(place.path("run")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let again = data(&String::from_utf8(place.bytes("run/report.html")).unwrap());
    assert_eq!(again["runs"][0]["stages"], run["stages"]);
}

#[test]
fn a_run_without_a_report_is_the_same_run() {
    let place = Place::with_classes();
    place.trained("with", &[]);
    place.trained("without", &["log.report=false"]);
    assert!(!place.path("without/report.html").exists());
    let file = "student/model.safetensors";
    assert_eq!(place.bytes(&format!("with/{file}")), place.bytes(&format!("without/{file}")));
}

#[test]
fn the_reason_of_an_end_is_kept_until_the_run_is_resumed() {
    let place = Place::with_classes();
    let mut run =
        place.pretrain("run", &["student.steps=1000000"]).stderr(Stdio::null()).spawn().unwrap();
    let log = place.path("run/metrics.jsonl");
    let begun = Instant::now();
    while !fs::read_to_string(&log).is_ok_and(|text| text.contains("\"student\"")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step of the student");
        std::thread::sleep(Duration::from_millis(20));
    }
    let ask = std::process::Command::new("kill").args(["-TERM", &run.id().to_string()]).status();
    assert!(ask.unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(143));
    let page = data(&String::from_utf8(place.bytes("run/report.html")).unwrap());
    let ended = &page["runs"][0]["ended"];
    assert_eq!((&page["runs"][0]["status"], &ended["signal"]), (&"stopped".into(), &15.into()));
    assert!(ended["why"].as_str().unwrap().contains("in stage student after step"), "{ended}");
    let once = saltworks().arg("watch").arg("--once").arg(place.path("run")).output().unwrap();
    let text = String::from_utf8(once.stdout).unwrap();
    assert!(text.contains("stopped") && text.contains("in stage student after step"), "{text}");
    let made = page["runs"][0]["stages"][1]["step"].as_u64().unwrap();
    let mut again = saltworks();
    let again = again.args(["pretrain", "--resume", "--out"]).arg(place.path("run"));
    let mut again = again.stderr(Stdio::null()).spawn().unwrap();
    let state = || String::from_utf8(place.bytes("run/state.json")).unwrap();
    while state().contains("\"ended\"") {
        assert!(begun.elapsed() < Duration::from_secs(90), "it trains on after step {made}");
        std::thread::sleep(Duration::from_millis(20));
    }
    again.kill().unwrap();
    again.wait().unwrap();
}

#[test]
fn several_runs_are_compared_in_one_file_and_a_folder_without_a_run_is_refused() {
    let place = Place::with_classes();
    place.trained("a", &["student.steps=1"]);
    place.trained("b", &["student.steps=2"]);
    let report = |more: &[&str]| {
        let mut command = saltworks();
        command.arg("report").args(more).current_dir(place.path("."));
        command
    };
    assert!(report(&["a", "b", "--out", "ab.html"]).output().unwrap().status.success());
    let page = String::from_utf8(place.bytes("ab.html")).unwrap();
    assert_eq!(data(&page)["runs"].as_array().unwrap().len(), 2);
    assert_refused(&mut report(&["a", "b"]), &["--out"]);
    assert_refused(&mut report(&["photos"]), &["recipe.toml"]);
}

/// A server that ends with its test.
struct Server {
    process: Child,
    address: String,
    /// The address that it printed.
    printed: String,
}

impl Server {
    fn start(place: &Place, more: &[&str]) -> Self {
        Self::with_token(place, more, None)
    }

    fn with_token(place: &Place, more: &[&str], token: Option<&str>) -> Self {
        let mut command = saltworks();
        command.arg("serve").arg(place.path(".")).args(["--port", "0"]).args(more);
        command.envs(token.map(|token| ("SALTWORKS_TOKEN", token)));
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut printed = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut printed).unwrap();
        let address = printed.trim().trim_start_matches("http://").split('/').next().unwrap();
        let port = address.rsplit(':').next().unwrap();
        let address = format!("127.0.0.1:{port}");
        Self { process, address, printed }
    }

    /// Waits for the first reading of the runs.
    fn wait_for_runs(&self) {
        let begun = Instant::now();
        while !self.json("/api/runs")["reading"].is_null() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the runs are still being read");
        }
    }

    fn ask(&self, head: &str) -> String {
        let mut stream = self.send(head);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn send(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).unwrap();
        stream
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost"))
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        serde_json::from_str(body).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn runs_are_served_and_nothing_else() {
    let place = Place::with_classes();
    place.trained("sweep/a", &["tags=[\"x\"]"]);
    place.text("secret.json", "{\"step\": 1, \"word\": \"hunter2\"}");
    // Lines of stages that name other files.
    let absolute = place.path("secret");
    let mut log =
        fs::OpenOptions::new().append(true).open(place.path("sweep/a/metrics.jsonl")).unwrap();
    for stage in ["../../../secret", absolute.to_str().unwrap()] {
        let line = serde_json::json!({"stage": stage, "step": 1, "loss": 0.5});
        writeln!(log, "{line}").unwrap();
    }
    let server = Server::start(&place, &[]);
    server.wait_for_runs();
    let rows = server.json("/api/runs")["rows"].clone();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!((&rows[0]["id"], &rows[0]["status"]), (&"sweep/a".into(), &"finished".into()));
    assert_eq!((&rows[0]["tags"][0], &rows[0]["step"]), (&"x".into(), &3.into()));
    let table: Value = serde_json::from_slice(&place.bytes("sweep/a/probes.json")).unwrap();
    let student =
        table.as_array().unwrap().iter().find(|row| row["features"] == "student").unwrap();
    assert_eq!(rows[0]["final_knn"], student["knn_mean"]);
    let run = server.json("/api/run?id=sweep%2Fa");
    assert_eq!(run["stages"].as_array().unwrap().len(), 2, "no stage of another name");
    assert_eq!(run["stages"][1]["series"]["step"].as_array().unwrap().len(), 3);
    assert_eq!(data(&server.get("/"))["rows"], rows);
    assert_eq!(data(&server.get("/run?id=sweep/a"))["ids"][0], "sweep/a");
    for path in [
        "/secret.json",
        "/../secret.json",
        "/api/run?id=..",
        "/api/run",
        "/api/run?id=sweep",
        "/api/pictures?id=sweep/a&stage=../../../secret",
        &format!("/api/pictures?id=sweep/a&stage={}", absolute.display()),
        "/run",
        "/run?id=nope",
    ] {
        let answer = server.get(path);
        assert!(answer.starts_with("HTTP/1.1 404") && !answer.contains("hunter2"), "{path}");
    }
    let lost = server.get("/run?id=nope");
    assert!(lost.contains("text/html") && lost.contains("href: '/'"), "a way back: {lost:.300}");
    assert!(server.get("/run?id=nope&id=sweep/a").starts_with("HTTP/1.1 200"));
    assert!(server.get("/api/pictures?id=sweep/a&stage=student").contains("\"step\":3"));
    let report = saltworks().arg("report").arg(place.path("sweep/a")).output().unwrap();
    assert!(report.status.success(), "{}", stderr(&report));
    let page = String::from_utf8(place.bytes("sweep/a/report.html")).unwrap();
    assert!(!page.contains("hunter2"));
    let status = |head: &str| server.ask(head)[..12].to_owned();
    assert_eq!(status("GET / HTTP/1.1\r\nHost: evil.example"), "HTTP/1.1 403");
    assert_eq!(status("POST / HTTP/1.1\r\nHost: localhost"), "HTTP/1.1 405");
    assert_eq!(status("nonsense"), "HTTP/1.1 400");
    let head = server.ask("HEAD / HTTP/1.1\r\nHost: localhost");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn pages_get_changes_while_a_run_trains() {
    let place = Place::with_classes();
    let server = Server::start(&place, &[]);
    let mut run =
        place.pretrain("run", &["student.steps=1000000"]).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while server.json("/api/runs")["rows"][0]["status"] != "training" {
        assert!(begun.elapsed() < Duration::from_secs(60), "a run that trains is reported");
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut news = BufReader::new(server.send("GET /events HTTP/1.1\r\nHost: localhost"));
    let mut line = |begins: &str| {
        let mut line = String::new();
        while !line.starts_with(begins) {
            line.clear();
            assert_ne!(news.read_line(&mut line).unwrap(), 0, "the stream ended");
        }
        line[begins.len()..].trim().to_owned()
    };
    let mut next = || line("data: ").parse::<u64>().unwrap();
    let first = next();
    let mut seen = Vec::new();
    while seen.len() < 3 && begun.elapsed() < Duration::from_secs(60) {
        assert!(next() > first, "numbers grow");
        let rows = server.json("/api/runs")["rows"].clone();
        let step = rows[0]["step"].as_u64().filter(|_| rows[0]["status"] == "training");
        if let Some(step) = step.filter(|step| !seen.contains(step) && *step > 0) {
            seen.push(step);
        }
    }
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(seen.len() == 3 && seen.is_sorted(), "{seen:?}");
    line("event: end");
    let begun = Instant::now();
    while server.json("/api/runs")["rows"][0]["status"] != "stopped" {
        assert!(begun.elapsed() < Duration::from_secs(20), "a killed run is reported as stopped");
        std::thread::sleep(Duration::from_millis(200));
    }
    fs::remove_dir_all(place.path("run")).unwrap();
    while !server.json("/api/runs")["ids"].as_array().unwrap().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(40), "a removed run is gone");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn other_machines_need_the_token() {
    let place = Place::with_classes();
    let server = Server::start(&place, &["--host", "0.0.0.0"]);
    let (_, token) = server.printed.trim().split_once("?token=").unwrap();
    assert!(server.get("/").starts_with("HTTP/1.1 403"));
    let entered = server.get(&format!("/api/runs?token={token}"));
    assert!(entered.starts_with("HTTP/1.1 303") && entered.contains("Location: /api/runs\r\n"));
    let cookie = entered.split("Set-Cookie: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let (cookie, flags) = cookie.split_once("; ").unwrap();
    assert_eq!(flags, "HttpOnly; SameSite=Strict; Path=/");
    let answer = server.ask(&format!("GET /api/runs HTTP/1.1\r\nHost: other\r\nCookie: {cookie}"));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\"rows\":[]}"), "{answer}");
    // A token of the user's may be secret.
    for own in [
        Server::start(&place, &["--token", "of-the-user-1"]),
        Server::with_token(&place, &[], Some("of-the-user-1")),
    ] {
        assert!(!own.printed.contains("of-the-user-1"), "{}", own.printed);
        assert!(own.get("/").starts_with("HTTP/1.1 403"));
        assert!(own.get("/?token=of-the-user-1").starts_with("HTTP/1.1 303"));
    }
    let mut short = saltworks();
    short.arg("serve").arg(place.path(".")).args(["--token", "abc"]);
    assert_refused(&mut short, &["token", "8 or more"]);
}

#[test]
fn a_folder_or_port_that_cannot_be_served_is_refused() {
    let place = Place::with_classes();
    let server = Server::start(&place, &[]);
    let port = server.address.rsplit(':').next().unwrap();
    let mut taken = saltworks();
    taken.arg("serve").arg(place.path(".")).args(["--port", port]);
    assert_refused(&mut taken, &[port, "--port"]);
    let mut missing = saltworks();
    missing.arg("serve").arg(place.path("nothing"));
    assert_refused(&mut missing, &["nothing", "pretrain"]);
}

/// Each took a copy of all pictures.
#[cfg(target_os = "linux")]
#[test]
fn slow_readers_take_little_memory_and_ctrl_c_waits_for_none() {
    let place = Place::empty();
    place.text("run/recipe.toml", "[[stage]]\nname = \"teacher\"\nmethod = \"mae\"\nsteps = 4\n");
    place.text("run/metrics.jsonl", "{\"stage\":\"teacher\",\"step\":1,\"loss\":0.5}\n");
    place.text("run/pictures/teacher.json", "");
    let pictures = fs::File::options().write(true).open(place.path("run/pictures/teacher.json"));
    pictures.unwrap().set_len(64 << 20).unwrap();
    let mut server = Server::start(&place, &[]);
    server.wait_for_runs();
    let ask = "GET /api/pictures?id=run&stage=teacher HTTP/1.1\r\nHost: localhost";
    let slow: Vec<TcpStream> = (0..64).map(|_| server.send(ask)).collect();
    for mut stream in &slow {
        // Its answer has begun.
        stream.read_exact(&mut [0; 1024]).unwrap();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 200 << 10, "{peak} kB");
    let begun = Instant::now();
    let id = server.process.id().to_string();
    let stop = std::process::Command::new("kill").args(["-INT", &id]).status();
    assert!(stop.unwrap().success());
    server.process.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
