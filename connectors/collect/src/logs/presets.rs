//! The lines of trainers, as rows of `train_step`. The patterns follow what the trainers' own sources print; docs/logs.md has a line of each.

use std::sync::LazyLock;

use regex::Regex;

use super::options::{Preset, Training};
use crate::rows::Cell;

/// What the lines before said that the next may need.
#[derive(Debug, Default)]
pub struct State {
    /// The steps of a progress bar on the same line, and how many there will be.
    bar: Option<(i64, i64)>,
    /// The batch that a progress bar told last.
    batch: Option<(i64, i64)>,
    /// The names of a metrics.csv.
    header: Option<Vec<String>>,
}

/// One step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    rank: Option<i64>,
    step: Option<i64>,
    epoch: Option<f64>,
    loss: Option<f64>,
    gradient_norm: Option<f64>,
    learning_rate: Option<f64>,
    step_seconds: Option<f64>,
    samples: Option<i64>,
}

impl Step {
    /// Its cells; what was not told is not among them.
    pub fn cells(self) -> Vec<(&'static str, Cell)> {
        let integers = [("rank", self.rank), ("step", self.step), ("samples", self.samples)];
        let floats = [
            ("epoch", self.epoch),
            ("loss", self.loss),
            ("gradient_norm", self.gradient_norm),
            ("learning_rate", self.learning_rate),
            ("step_seconds", self.step_seconds),
        ];
        let integers = integers.into_iter().filter_map(|(name, value)| Some((name, Cell::Int(value?))));
        // The columns that NaN is a fault of.
        let fits = |name: &str, value: f64| value.is_finite() || ["loss", "gradient_norm"].contains(&name);
        let floats = floats.into_iter().filter_map(|(name, value)| Some((name, value?)));
        integers
            .chain(floats.filter(|(name, value)| fits(name, *value)).map(|(name, value)| (name, Cell::Float(value))))
            .collect()
    }

    fn says_something(&self) -> bool {
        self.loss.is_some() || self.gradient_norm.is_some() || self.learning_rate.is_some()
    }
}

/// The step that a line tells of.
pub fn step_of(preset: Preset, text: &str, training: &Training, state: &mut State) -> Option<Step> {
    match preset {
        Preset::Megatron => text.lines().find_map(megatron),
        Preset::DeepSpeed => deepspeed(text, training),
        Preset::HfTrainer => hf_trainer(text, training, state),
        Preset::Lightning => lightning(text, state),
    }
}

/// What a line says of the ones to come, after it was looked at: a progress bar holds until the line is over.
pub fn pass(text: &str, transient: bool, state: &mut State) {
    if !transient {
        state.bar = None;
    } else if let Some(bar) = last_bar(text) {
        state.bar = Some(bar);
    }
}

/// What the first line of a file says that is read on from somewhere else.
pub fn begin(preset: Preset, first_line: &str, state: &mut State) {
    if preset == Preset::Lightning {
        state.header = header_of(first_line);
    }
}

macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($text).ok());
    };
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

fn whole(text: &str) -> Option<i64> {
    let number = number(text).filter(|number| number.fract() == 0.0 && number.abs() < 9e15)?;
    Some(number as i64)
}

pattern!(ITERATION, r"\biteration:?\s+(\d+)\s*/\s*\d+\s*\|(.*)");
pattern!(PART, r"^\s*(.+?)(?::\s*|\s+)([-+]?(?:[\d.]+(?:[eE][-+]?\d+)?|nan|inf))\s*$");

/// `iteration 100/ 500 | consumed samples: 800 | elapsed time per iteration (ms): 714.4 | ... | lm loss: 6.1E+00 | ... |`
///
/// A loss that is not a number is not printed: it is counted, in `number of nan iterations`, or is missing beside a norm that is not a number.
/// And where all iterations were skipped, the loss is printed as 0.
fn megatron(line: &str) -> Option<Step> {
    let found = ITERATION.as_ref()?.captures(line)?;
    let mut step = Step { step: whole(&found[1]), ..Step::default() };
    let (mut skipped, mut nan, mut other_loss) = (0.0, 0.0, None);
    for part in found[2].split('|') {
        let Some(part) = PART.as_ref()?.captures(part) else { continue };
        let Some(value) = number(&part[2]) else { continue };
        match &part[1] {
            "elapsed time per iteration (ms)" => step.step_seconds = Some((value * 1e3).round() / 1e6),
            "elapsed time per iteration (s)" => step.step_seconds = Some(value),
            "learning rate" => step.learning_rate = Some(value),
            "lm loss" => step.loss = Some(value),
            "grad norm" | "gradient norm" => step.gradient_norm = Some(value),
            "global batch size" => step.samples = whole(&part[2]),
            "number of skipped iterations" => skipped = value,
            "number of nan iterations" => nan = value,
            "loss" | "mlm loss" | "reduced_train_loss" => other_loss = Some(value),
            _ => {}
        }
    }
    step.loss = step.loss.or(other_loss);
    if skipped > 0.0 && step.loss == Some(0.0) {
        step.loss = None;
    }
    let norm_is_nan = step.gradient_norm.is_some_and(|norm| !norm.is_finite());
    if step.loss.is_none() && (nan > 0.0 || (norm_is_nan && skipped == 0.0)) {
        step.loss = Some(f64::NAN);
    }
    Some(step)
}

pattern!(PIPELINE, r"\bsteps?: +(\d+)(?: */ *\d+)? loss: (\S+) .*?\biter time \(s\): (\S+)");
pattern!(RANK_STEP, r"\[Rank (-?\d+)\] step=(\d+), skipped=\d+, lr=\[([^\],]*)");
pattern!(TIMER, r"\bglobal_step=(\d+), RunningAvgSamplesPerSec=\S+, CurrSamplesPerSec=([^\s,]+)");

/// Three lines: the pipeline engine's `steps: 10 loss: 5.1 iter time (s): 0.5 samples/sec: 32.0`, every engine's
/// `[Rank 0] step=10, skipped=0, lr=[1e-05], mom=[...]`, and the timer's `global_step=10, ..., CurrSamplesPerSec=25.7, ...`.
fn deepspeed(text: &str, training: &Training) -> Option<Step> {
    if let Some(found) = PIPELINE.as_ref()?.captures(text) {
        let step_seconds = number(&found[3]);
        return Some(Step { step: whole(&found[1]), loss: number(&found[2]), step_seconds, ..Step::default() });
    }
    if let Some(found) = RANK_STEP.as_ref()?.captures(text) {
        let rank = found[1].parse().ok().filter(|rank| *rank >= 0);
        return Some(Step { rank, step: whole(&found[2]), learning_rate: number(&found[3]), ..Step::default() });
    }
    let found = TIMER.as_ref()?.captures(text)?;
    let samples = training.samples_per_step?;
    let per_second = number(&found[2]).filter(|speed| *speed > 0.0);
    let step_seconds = per_second.map(|speed| samples as f64 / speed);
    Some(Step { step: whole(&found[1]), samples: Some(samples), step_seconds, ..Step::default() })
}

pattern!(BAR, r"(\d+)/(\d+) \[\d[\d:]*<");

fn last_bar(text: &str) -> Option<(i64, i64)> {
    let found = BAR.as_ref()?.captures_iter(text).last()?;
    Some((found[1].parse().ok()?, found[2].parse().ok()?))
}

/// `{'loss': 0.5, 'grad_norm': 1.2, 'learning_rate': 2e-05, 'epoch': 0.31}`, with numbers or texts of numbers. It does not say its step: that is
/// in one of its values, or in the progress bar on the same line, or follows from the epoch.
fn hf_trainer(text: &str, training: &Training, state: &State) -> Option<Step> {
    let at = text.find("{'").or_else(|| text.find("{\""))?;
    let values = python_dict(&text[at..])?;
    let value = |name: &str| values.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let of = |name: &str| value(name).and_then(number);
    // An evaluation and the summary at the end have losses by other names.
    let loss = of("loss")?;
    let epoch = of("epoch");
    let said = ["step", "global_step"].iter().find_map(|name| value(name).and_then(whole));
    let of_total = || whole(value("global_step/max_steps")?.split('/').next()?);
    let of_bar = || last_bar(&text[..at]).or(state.bar).map(|(step, _)| step);
    let of_epoch = || Some((epoch? * training.steps_per_epoch?).round() as i64);
    Some(Step {
        step: said.or_else(of_total).or_else(of_epoch).or_else(of_bar),
        epoch,
        loss: Some(loss),
        gradient_norm: of("grad_norm"),
        learning_rate: of("learning_rate"),
        step_seconds: of("train_speed(s/it)").or_else(|| of("step_time")),
        ..Step::default()
    })
}

/// The names and values of a dict as Python prints one; of `float64(0.5)` and the like what is within. Nested values are kept as they stand.
fn python_dict(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.strip_prefix('{')?;
    loop {
        rest = rest.trim_start();
        let quote = rest.chars().next().filter(|letter| ['\'', '"'].contains(letter));
        let Some(quote) = quote else { break };
        let end = rest[1..].find(quote)? + 1;
        let name = rest[1..end].to_string();
        rest = rest[end + 1..].trim_start().strip_prefix(':')?;
        let end = value_end(rest)?;
        pairs.push((name, plain(&rest[..end]).to_string()));
        rest = rest[end..].strip_prefix(',').unwrap_or("");
    }
    Some(pairs)
}

/// Where a value ends: at a comma or brace that is in no brackets and no quotes.
fn value_end(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ',' | '}') if depth == 0 => return Some(at),
            (None, ')' | ']' | '}') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn plain(text: &str) -> &str {
    let text = text.trim();
    let inner = text.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).map(|rest| rest.split(',').next());
    inner.flatten().unwrap_or(text).trim().trim_matches(['\'', '"'])
}

pattern!(
    EPOCH_BAR,
    r"^\s*Epoch (\d+):\s+(?:\d+%)?\|[^|]*\|\s*(\d+)/(\d+|\?) \[[^<\]]*<[^,\]]*,\s*([\d.]+|\?)\s?(it/s|s/it)(?:, (.*))?\]"
);
pattern!(RICH_BAR, r"^\s*Epoch (\d+)/\d+\s+\S*?[━╸╺\s]+(\d+)/(\d+|--) \S+ • \S+ ([\d.]+)(it/s)\s*(.*)$");
pattern!(RICH_VALUE, r"([\w./-]+): (\S+)");

const LOSSES: [&str; 6] = ["train_loss_step", "train/loss_step", "train_loss", "train/loss", "loss_step", "loss"];
const NORMS: [&str; 4] = ["grad_norm", "gradient_norm", "grad_2.0_norm_total", "grad_2_norm_total"];

/// `Epoch 0:  45%|####      | 20/44 [00:10<00:12,  2.00it/s, v_num=0, train_loss=0.1]`, the same of the Rich progress bar, and the rows of
/// a metrics.csv. The step of a bar counts batches.
fn lightning(text: &str, state: &mut State) -> Option<Step> {
    let found = EPOCH_BAR.as_ref()?.captures(text).or_else(|| RICH_BAR.as_ref()?.captures(text));
    let Some(found) = found else { return csv(text, state) };
    let (epoch, batch) = (whole(&found[1])?, whole(&found[2])?);
    // The first bar tells of nothing, and each is painted again.
    if batch == 0 || state.batch.replace((epoch, batch)) == Some((epoch, batch)) {
        return None;
    }
    let step = match whole(&found[3]) {
        Some(batches) => Some(epoch * batches + batch),
        None => (epoch == 0).then_some(batch),
    };
    let rest = found.get(6).map_or("", |rest| rest.as_str());
    let values: Vec<(&str, &str)> = match rest.contains('=') {
        true => rest.split(", ").filter_map(|pair| pair.split_once('=')).collect(),
        false => RICH_VALUE
            .as_ref()?
            .captures_iter(rest)
            .map(|pair| pair.extract())
            .map(|(_, [name, value])| (name, value))
            .collect(),
    };
    let of = |names: &[&str]| names.iter().find_map(|name| number(values.iter().find(|(key, _)| key == name)?.1));
    let speed = number(&found[4]).filter(|speed| *speed > 0.0);
    let step_seconds = if &found[5] == "it/s" { speed.map(|speed| 1.0 / speed) } else { speed };
    Some(Step { step, epoch: Some(epoch as f64), loss: of(&LOSSES), step_seconds, ..Step::default() })
}

fn header_of(line: &str) -> Option<Vec<String>> {
    let names: Vec<String> = line.trim().split(',').map(str::to_string).collect();
    ["step", "epoch"].iter().all(|name| names.iter().any(|found| found == name)).then_some(names)
}

fn csv(text: &str, state: &mut State) -> Option<Step> {
    if let Some(names) = header_of(text) {
        state.header = Some(names);
        return None;
    }
    let names = state.header.as_ref()?;
    let values: Vec<&str> = text.trim().split(',').collect();
    if values.len() != names.len() {
        return None;
    }
    let of = |fits: &dyn Fn(&str) -> bool| {
        let mut pairs = names.iter().zip(&values).filter(|(name, value)| fits(name) && !value.is_empty());
        pairs.find_map(|(_, value)| number(value))
    };
    let first = |names: &[&str]| names.iter().find_map(|name| of(&|found| found == *name));
    let step = Step {
        step: first(&["step"]).map(|step| step as i64),
        epoch: first(&["epoch"]),
        loss: first(&LOSSES),
        gradient_norm: first(&NORMS),
        learning_rate: of(&|name| name.starts_with("lr-") || ["lr", "learning_rate"].contains(&name)),
        ..Step::default()
    };
    step.says_something().then_some(step)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn steps(preset: Preset, lines: &[&str]) -> Vec<String> {
        steps_with(preset, lines, Training::default())
    }

    /// What each line tells; a line that ends in `^` is written over.
    fn steps_with(preset: Preset, lines: &[&str], training: Training) -> Vec<String> {
        let mut state = State::default();
        let of = |line: &&str| {
            let (text, transient) = line.strip_suffix('^').map_or((*line, false), |text| (text, true));
            let step = step_of(preset, text, &training, &mut state);
            pass(text, transient, &mut state);
            let cell = |(name, cell): (&str, Cell)| match cell {
                Cell::Int(value) => format!("{name}={value}"),
                Cell::Float(value) => format!("{name}={value}"),
                other => format!("{name}={other:?}"),
            };
            step.map_or("-".to_string(), |step| step.cells().into_iter().map(cell).collect::<Vec<_>>().join(" "))
        };
        lines.iter().map(of).collect()
    }

    #[test]
    fn megatron_of_several_years() {
        let lines = [
            " [2026-08-22 15:22:22.123456] iteration      100/  500000 | consumed samples:        51200 | elapsed time per iteration (ms): 5832.4 | throughput per GPU (TFLOP/s/GPU): 412.3 | learning rate: 4.800000E-05 | global batch size:   512 | lm loss: 6.187352E+00 | load_balancing_loss: 1.02E+00 | loss scale: 1.0 | grad norm: 1.347 | num zeros: 0 | params norm: 880.1 | number of skipped iterations:   0 | number of nan iterations:   0 |",
            " iteration      199/  317892 | consumed samples:       152832 | consumed tokens:    625999872 | elapsed time per iteration (ms): 14287.5 | learning rate: 2.407E-04 | global batch size:   768 | lm loss: 3.2E+00 | loss scale: 1.0 | grad norm: 0.41 | number of skipped iterations: 0 | number of nan iterations: 0 | samples per second: 53.7 | TFLOPs: 150.1 |",
            " iteration      100/   50000 | elapsed time per iteration (ms): 714.4 | learning rate 1.500E-04 | lm loss 8.5E+00 | loss scale 65536.0 |",
            " [2026-01-31 12:00:00] iteration 7/ 10 | elapsed time per iteration (ms): 100.0 | learning rate: 0.000000E+00 | global batch size: 8 | lm loss: 0.000000E+00 | loss scale: 2147483648.0 | number of skipped iterations: 1 | number of nan iterations: 0 |",
            " iteration 8/ 10 | elapsed time per iteration (ms): 100.0 | lm loss: 0.000000E+00 | number of skipped iterations: 1 | number of nan iterations: 1 |",
            " iteration 9/ 10 | elapsed time per iteration (ms): 100.0 | loss scale: 1.0 | grad norm: nan | number of skipped iterations: 0 | number of nan iterations: 0 |",
            " validation loss at iteration 1000 | lm loss value: 2.1E+00 | lm loss PPL: 8.2E+00 |",
            "12: iteration 10/ 10 | loss: 1.5 | grad norm: inf |",
        ];
        let expected = [
            "step=100 samples=512 loss=6.187352 gradient_norm=1.347 learning_rate=0.000048 step_seconds=5.8324",
            "step=199 samples=768 loss=3.2 gradient_norm=0.41 learning_rate=0.0002407 step_seconds=14.2875",
            "step=100 loss=8.5 learning_rate=0.00015 step_seconds=0.7144",
            "step=7 samples=8 learning_rate=0 step_seconds=0.1",
            "step=8 loss=NaN step_seconds=0.1",
            "step=9 loss=NaN gradient_norm=NaN step_seconds=0.1",
            "-",
            "step=10 loss=1.5 gradient_norm=inf",
        ];
        assert_eq!(steps(Preset::Megatron, &lines), expected);
    }

    #[test]
    fn deepspeed_of_each_engine() {
        let lines = [
            "steps: 10 loss: 5.1234 iter time (s): 0.512 samples/sec: 31.250",
            "steps: 20 loss: nan lm_loss: 2.0 moe_loss: 0.1 iter time (s): 0.500 samples/sec: 32.000",
            "step:    30 /  500 loss: 2.5 iter time (s): 0.5 samples/sec: 32.000 eta: 1:00 ",
            "[2026-01-31 12:00:00,121] [INFO] [logging.py:68:log_dist] [Rank 0] step=20, skipped=17, lr=[5e-05], mom=[(0.9, 0.999)]",
            "[2026-01-31 12:00:00,121] [INFO] [logging.py:96:log_dist] [Rank 3] step=30, skipped=0, lr=[4.99e-05, 1e-3], mom=[[0.8, 0.9]]",
            "[2026-01-31 12:00:00,714] [INFO] [timer.py:260:stop] epoch=0/micro_step=40/global_step=10, RunningAvgSamplesPerSec=25.02, CurrSamplesPerSec=25.6, MemAllocated=4.32GB, MaxMemAllocated=38.49GB",
            "[Rank 0] [Torch] Checkpoint global_step10 is about to be saved!",
        ];
        let expected = [
            "step=10 loss=5.1234 step_seconds=0.512",
            "step=20 loss=NaN step_seconds=0.5",
            "step=30 loss=2.5 step_seconds=0.5",
            "rank=0 step=20 learning_rate=0.00005",
            "rank=3 step=30 learning_rate=0.0000499",
            "-",
            "-",
        ];
        assert_eq!(steps(Preset::DeepSpeed, &lines), expected);
        let training = Training { samples_per_step: Some(64), ..Training::default() };
        assert_eq!(
            steps_with(Preset::DeepSpeed, &lines[5..6], training),
            ["step=10 samples=64 step_seconds=2.5"],
            "known from the samples of a step"
        );
    }

    #[test]
    fn hugging_face_of_several_versions() {
        let lines = [
            "{'loss': 0.6931, 'learning_rate': 4.5e-05, 'epoch': 0.31}",
            "{'loss': nan, 'grad_norm': nan, 'learning_rate': 0.0, 'epoch': 1.0}   ",
            "{'loss': '5.072', 'grad_norm': '20.19', 'learning_rate': '0', 'epoch': '0.009302'}",
            "{'loss': np.float64(2.5), 'grad_norm': tensor(1.5, device='cuda:0'), 'epoch': 2.0, 'rewards': [1, 2], 'note': 'a, b}'}",
            "  2%|#         | 1/60 [00:55<54:36, 55.53s/it]{'loss': 0.66, 'epoch': 0.08, 'train_speed(s/it)': '55.5'}",
            "  3%|#         | 2/60 [01:55<54:36, 55.53s/it]^",
            "                                             ^",
            "{'loss': 0.65, 'epoch': 0.1}",
            "{'loss': 0.64, 'epoch': 0.12}",
            "{\"loss\": 0.5, \"step\": 12, \"epoch\": 3}",
            "{'loss': 1.0, 'epoch': 0.1, 'global_step/max_steps': '7/60'}",
            "{'eval_loss': 2.8, 'eval_runtime': 1.2, 'epoch': 1.0}",
            "{'train_runtime': 364.4, 'train_loss': 2.25, 'epoch': 0.1}",
            "{'loss': 1.0, 'epoch'",
            "config: {'loss': 'mse'}",
        ];
        let expected = [
            "epoch=0.31 loss=0.6931 learning_rate=0.000045",
            "epoch=1 loss=NaN gradient_norm=NaN learning_rate=0",
            "epoch=0.009302 loss=5.072 gradient_norm=20.19 learning_rate=0",
            "epoch=2 loss=2.5 gradient_norm=1.5",
            "step=1 epoch=0.08 loss=0.66 step_seconds=55.5",
            "-",
            "-",
            "step=2 epoch=0.1 loss=0.65",
            "epoch=0.12 loss=0.64",
            "step=12 epoch=3 loss=0.5",
            "step=7 epoch=0.1 loss=1",
            "-",
            "-",
            "-",
            "-",
        ];
        assert_eq!(steps(Preset::HfTrainer, &lines), expected);
        let training = Training { steps_per_epoch: Some(250.0), ..Training::default() };
        assert_eq!(
            steps_with(Preset::HfTrainer, &lines[..1], training),
            ["step=78 epoch=0.31 loss=0.6931 learning_rate=0.000045"]
        );
    }

    #[test]
    fn lightning_by_bar_and_by_file() {
        let lines = [
            "Epoch 0:   0%|          | 0/44 [00:00<?, ?it/s]^",
            "Epoch 0:   2%|2         | 1/44 [00:01<00:43,  1.00it/s, v_num=0]^",
            "Epoch 0:   5%|4         | 2/44 [00:02<00:42,  1.25it/s, v_num=0, train_loss_step=1.460, valid_loss=9]^",
            "Epoch 0:   5%|4         | 2/44 [00:02<00:42,  1.25it/s, v_num=0, train_loss_step=1.460]^",
            "Epoch 1: 100%|##########| 44/44 [01:28<00:00,  2.00s/it, v_num=0, train/loss=nan.0]",
            "Epoch 2: |          | 7/? [00:07<00:00,  1.00it/s, loss=0.5]^",
            "Epoch 1/9  ━━━━━━━━━━━━━━ 3/938 0:00:07 • 0:01:00 4.00it/s v_num: 0.000 train_loss: 0.100",
            "Validation DataLoader 0: 100%|##########| 2/2 [00:00<00:00, 9.00it/s]^",
        ];
        let expected = [
            "-",
            "step=1 epoch=0 step_seconds=1",
            "step=2 epoch=0 loss=1.46 step_seconds=0.8",
            "-",
            "step=88 epoch=1 step_seconds=2",
            "epoch=2 loss=0.5 step_seconds=1",
            "step=941 epoch=1 loss=0.1 step_seconds=0.25",
            "-",
        ];
        assert_eq!(steps(Preset::Lightning, &lines), expected);
        let lines = [
            "1,49,0.9,,0.001",
            "epoch,step,train_loss,val_loss,lr-AdamW",
            "0,49,0.6931,,0.001",
            "0,99,,0.7,",
            "1,149,nan,,",
            "1,199",
        ];
        let expected =
            ["-", "-", "step=49 epoch=0 loss=0.6931 learning_rate=0.001", "-", "step=149 epoch=1 loss=NaN", "-"];
        assert_eq!(steps(Preset::Lightning, &lines), expected);
        let mut state = State::default();
        begin(Preset::Lightning, "epoch,grad_norm,step,train/loss_step", &mut state);
        let step = step_of(Preset::Lightning, "0,1.5,9,0.25", &Training::default(), &mut state).unwrap();
        assert_eq!((step.step, step.loss, step.gradient_norm), (Some(9), Some(0.25), Some(1.5)));
    }
}
