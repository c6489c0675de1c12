//! What a run will cost, told before it, is what it then is.

mod place;

use place::{Place, TINY, assert_refused, saltworks, stderr};
use serde_json::Value;

fn planned(place: &Place, more: &[&str]) -> (String, String) {
    let (mut plan, photos) = (saltworks(), place.photos());
    plan.arg("plan");
    for given in TINY.iter().chain([&photos.as_str()]) {
        plan.args(["--set", given]);
    }
    let output = plan.args(more).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    (String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output))
}

#[test]
fn a_plan_is_what_the_run_then_writes_and_is() {
    let place = Place::with_classes();
    let (text, _) = planned(&place, &["--seconds", "0", "--json"]);
    let plan: Value = serde_json::from_str(&text).unwrap();
    place.trained("run", &[]);
    let written: Value = serde_json::from_slice(&place.bytes("run/plan.json")).unwrap();
    assert_eq!(plan, written);
    let log = String::from_utf8(place.bytes("run/metrics.jsonl")).unwrap();
    let steps = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps: Vec<_> = steps.filter(|step| step["loss"].is_number()).collect();
    for stage in plan["stages"].as_array().unwrap() {
        let own = || steps.iter().filter(|step| step["stage"] == stage["name"]);
        assert_eq!(own().count() as u64, stage["steps"].as_u64().unwrap());
        // Masks differ from step to step: means of some steps come near.
        let batch = stage["batch"].as_f64().unwrap();
        let images = own().count() as f64 * batch;
        let tokens: f64 = own().map(|step| step["context_tokens"].as_f64().unwrap()).sum();
        let name = if stage["method"] == "mae" { "encoder" } else { "student" };
        let told = stage["tokens_per_image"][name].as_f64().unwrap();
        assert!((tokens / images / told - 1.0).abs() < 0.3, "{} and {told}", tokens / images);
        // As the paper counts: six FLOPs a parameter and token where trained, two where frozen.
        let each = stage["parameters"].as_object().unwrap();
        let mut total = 0.0;
        for (network, parameters) in each {
            let per_token = if network == "teacher" { 2.0 } else { 6.0 };
            let tokens = stage["tokens_per_image"][network].as_f64().unwrap();
            let wanted = per_token * parameters.as_f64().unwrap() * tokens;
            let found = stage["paper_flops_per_image"][network].as_f64().unwrap();
            assert!((found / wanted - 1.0).abs() < 1e-9, "{network}: {found} for {wanted}");
            total += found;
        }
        let told = stage["paper_flops_per_image"]["total"].as_f64().unwrap();
        assert!((told / total - 1.0).abs() < 1e-9);
        let bytes =
            place.bytes(&format!("run/{}/encoder.safetensors", stage["name"].as_str().unwrap()));
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let values: usize =
            file.tensors().iter().map(|(_, each)| each.shape().iter().product::<usize>()).sum();
        assert_eq!(stage["parameters"][name], values);
    }
}

#[test]
fn a_plan_times_each_stage_and_leaves_nothing() {
    let place = Place::with_classes();
    let names = || std::fs::read_dir(place.path(".")).unwrap().count();
    let before = names();
    let (text, told) = planned(&place, &["--seconds", "0.05"]);
    for word in [
        "images/s",
        "paper's",
        "teacher",
        "student",
        "predictor",
        "memory",
        "its teacher's latents",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(told.contains("timing steps"), "{told}");
    let (text, _) = planned(&place, &["--seconds", "0.05", "--json"]);
    let plan: Value = serde_json::from_str(&text).unwrap();
    for stage in plan["stages"].as_array().unwrap() {
        let seconds = stage["measured"]["seconds_per_step"].as_f64().unwrap();
        let all = seconds * stage["steps"].as_f64().unwrap();
        assert!((stage["measured"]["seconds"].as_f64().unwrap() / all - 1.0).abs() < 1e-9);
        let rate = stage["measured"]["images_per_second"].as_f64().unwrap();
        assert!((rate * seconds / 8.0 - 1.0).abs() < 1e-9, "eight images a step");
        assert!(stage["measured"]["online_probe_seconds"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(names(), before);
    let mut refused = saltworks();
    assert_refused(refused.args(["plan", "nothing.toml"]), &["nothing.toml"]);
    let mut refused = saltworks();
    assert_refused(refused.args(["plan", "--seconds", "-1"]), &["seconds"]);
    // Lengths in minutes are timed.
    let mut refused = saltworks();
    refused.arg("plan").arg(place.path("photos")).args(["--seconds", "0"]);
    let advice = "--set teacher.steps=1000 --set student.steps=1000";
    assert_refused(&mut refused, &["--seconds is 0", "steps or epochs for each stage", advice]);
    let mut followed = saltworks();
    followed.arg("plan").arg(place.path("photos")).args(["--seconds", "0"]);
    let output = followed.args(advice.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Without the check, an allocation fails and the program aborts.
#[test]
#[cfg(target_os = "linux")]
fn a_model_that_no_memory_can_hold_is_refused_by_plan_and_run() {
    let place = Place::with_classes();
    for verb in ["plan", "pretrain"] {
        let mut limited = std::process::Command::new("sh");
        let script = "ulimit -v 4000000; exec \"$@\"";
        limited.args(["-c", script, "sh", env!("CARGO_BIN_EXE_saltworks"), verb]);
        limited.env("MALLOC_ARENA_MAX", "2").current_dir(place.path("."));
        for given in ["model.width=2048", "model.depth=32", "model.heads=16"] {
            limited.args(["--set", given]);
        }
        let moments = "stage teacher: its weights, gradients and AdamW's moments take 25.8 GB";
        assert_refused(&mut limited, &[moments, "GB of memory are free. Choose a smaller model"]);
    }
}
