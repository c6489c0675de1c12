//! `precision = "bf16"` as its users see it.

mod place;

use place::{Place, saltworks, stderr};
use serde_json::Value;

#[test]
fn bf16_takes_less_memory_gives_nearly_the_losses_of_f32_and_the_same_bits_on_any_threads() {
    let place = Place::with_classes();
    let set = ["model.drop_path=0.3", "model.qk_norm=true", "model.layer_scale=0.1"];
    let bf16 = [&set[..], &["precision=bf16"]].concat();
    place.trained("f32", &set);
    place.trained("bf16", &[&bf16[..], &["threads=1"]].concat());
    place
        .trained("checkpointed", &[&bf16[..], &["teacher.activation_checkpointing=true"]].concat());
    place.trained("three threads", &[&bf16[..], &["threads=3"]].concat());
    place.assert_same_run("bf16", "three threads");
    place.assert_same_run("bf16", "checkpointed");
    let losses = |run: &str| -> Vec<f64> {
        place.curve(run).iter().map(|step| step["loss"].as_f64().unwrap()).collect()
    };
    let (exact, rounded) = (losses("f32"), losses("bf16"));
    assert_ne!(exact, rounded);
    for (step, (exact, rounded)) in exact.iter().zip(&rounded).enumerate() {
        // Eight bits of each activation, and what a few steps make of it.
        assert!((exact - rounded).abs() < 0.02 * exact, "step {step}: {exact} and {rounded}");
    }
    let memory = |precision: &str| {
        let mut bench = saltworks();
        bench.args(["bench", "--stage", "mae", "--steps", "1", "--json"]);
        bench.args(["--set", "model={width=64,depth=24,heads=2}"]);
        bench.args(["--set", "step.decoder={width=32,depth=1,heads=2}"]);
        bench.args(["--set", &format!("precision={precision}")]);
        let output = bench.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(line["precision"], precision);
        line["peak_memory_bytes"].as_f64().unwrap()
    };
    let (f32, bf16) = (memory("f32"), memory("bf16"));
    assert!(bf16 < 0.7 * f32, "{bf16} of {f32} bytes");
}
