//! Cubes that agree in rows, groups and panes, and the windows over them.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Result};
use tidewatch_model::{Span, Timestamp, WindowSpec};

use super::bounds::Bounds;
use super::chunk::{Chunk, runs};
use super::cube::Cube;
use super::grouping::{Grouping, NO_GROUP};
use super::kernel::Run;
use super::plan::Call;
use crate::moments::Question;
use crate::values::truths;

/// The cube of each cluster that counts its rows.
pub const ROWS: usize = 0;
/// Faults of one pane that are told apart; beyond them all its groups are taken for faulty.
const FAULTS: usize = 64;

/// Cubes that agree in rows, groups and panes.
#[derive(Debug)]
pub struct Cluster {
    /// Which numbering.
    pub grouping: usize,
    /// Which rows.
    pub stream: usize,
    /// Length of a pane.
    pub pane: Span,
    /// The cubes; the first counts rows.
    pub cubes: Vec<Filled>,
    /// Windows over them.
    pub views: Vec<View>,
    /// By pane: rows that could not be evaluated.
    faults: BTreeMap<Timestamp, Vec<RowFault>>,
}

/// A cube and what it is filled from.
#[derive(Debug)]
pub struct Filled {
    /// The aggregate call.
    pub call: Call,
    /// Its panes and windows.
    pub cube: Box<dyn Cube>,
    /// How many rules use it.
    pub rules: usize,
    /// Its arguments, among the stream's inputs.
    pub arguments: Vec<usize>,
    /// FILTER, among the stream's inputs.
    pub filter: Option<usize>,
}

/// A row that could not be evaluated.
#[derive(Debug)]
pub struct RowFault {
    /// Its group, or [`NO_GROUP`] for any.
    pub group: u32,
    /// The cube that missed it; `None` for all.
    pub cube: Option<usize>,
    /// Why.
    pub message: String,
}

/// One slide and size over a cluster, at one delay.
#[derive(Debug)]
pub struct View {
    /// Slide and size.
    pub spec: WindowSpec,
    delay: Span,
    /// The window over the cube that counts rows.
    rows: usize,
    /// What rules ask of its windows, each once.
    slots: Vec<Slot>,
    /// By group: the end of the last window with rows of its.
    pub last_seen: Vec<Timestamp>,
    slid: Option<Slid>,
}

/// One question to one cube.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    cube: usize,
    window: usize,
    question: Question,
}

/// A view at the end of a window.
#[derive(Debug)]
pub struct Slid {
    end: Timestamp,
    /// The groups with rows, ascending; `None` when all have.
    pub present: Option<UInt32Array>,
    /// By group: rows in the window.
    pub counts: ArrayRef,
    /// By slot: the answers for the groups with rows, and where they lie; absent until asked for.
    answers: Vec<Option<(ArrayRef, Bounds)>>,
    /// Key columns of the groups with rows.
    pub keys: Vec<ArrayRef>,
}

impl Cluster {
    /// With the cube that counts rows.
    pub fn new(grouping: usize, stream: usize, pane: Span) -> Cluster {
        Cluster { grouping, stream, pane, cubes: vec![], views: vec![], faults: BTreeMap::new() }
    }

    /// The view of this slide, size and delay.
    pub fn view(&mut self, spec: WindowSpec, delay: Span) -> usize {
        if let Some(index) = self.views.iter().position(|view| view.spec == spec && view.delay == delay) {
            return index;
        }
        let rows = self.cubes[ROWS].cube.add_window();
        self.views.push(View { spec, delay, rows, slots: vec![], last_seen: vec![], slid: None });
        self.views.len() - 1
    }

    /// Where a view has the answers to a question.
    pub fn slot(&mut self, view: usize, cube: usize, question: Question) -> usize {
        let slots = &mut self.views[view].slots;
        if let Some(known) = slots.iter().position(|slot| (slot.cube, slot.question) == (cube, question)) {
            return known;
        }
        let shared = slots.iter().find(|slot| slot.cube == cube).map(|slot| slot.window);
        let window = shared.unwrap_or_else(|| self.cubes[cube].cube.add_window());
        slots.push(Slot { cube, window, question });
        slots.len() - 1
    }

    /// The cube that a slot asks.
    pub fn cube_of(&self, view: usize, slot: usize) -> usize {
        self.views[view].slots[slot].cube
    }

    /// Takes the rows of a chunk into panes. `keys` are the inputs that number them.
    pub fn take(&mut self, chunk: &Chunk, keys: &[usize], group_count: usize, floor: Timestamp) {
        let Some(groups) = chunk.groups.get(&self.grouping) else { return };
        let floor = floor.floor(self.pane);
        let runs: Vec<(Timestamp, Range<usize>)> =
            runs(&chunk.times, self.pane).filter(|(pane, _)| *pane >= floor).collect();
        for filled in &mut self.cubes {
            let arguments: Vec<ArrayRef> = filled.arguments.iter().map(|input| chunk.inputs[*input].clone()).collect();
            let mask: Option<BooleanArray> = filled.filter.map(|input| truths(&chunk.inputs[input]));
            for (pane, rows) in runs.iter().cloned() {
                let run = Run { arguments: &arguments, mask: mask.as_ref(), groups, rows, group_count };
                filled.cube.update(pane, &run);
            }
        }
        for (ts, message) in &chunk.condition_faults {
            self.fault(Timestamp(*ts).floor(self.pane), NO_GROUP, None, message);
        }
        for (input, row, message) in &chunk.input_faults {
            let pane = Timestamp(chunk.times[*row]).floor(self.pane);
            if keys.contains(input) {
                self.fault(pane, NO_GROUP, None, message);
            }
            let reads = |filled: &Filled| filled.arguments.contains(input) || filled.filter == Some(*input);
            let cubes: Vec<usize> = (0..self.cubes.len()).filter(|cube| reads(&self.cubes[*cube])).collect();
            for cube in cubes {
                self.fault(pane, groups[*row], Some(cube), message);
            }
        }
    }

    fn fault(&mut self, pane: Timestamp, group: u32, cube: Option<usize>, message: &str) {
        let faults = self.faults.entry(pane).or_default();
        let fault = match faults.len() {
            ..FAULTS => RowFault { group, cube, message: message.to_string() },
            FAULTS => RowFault { group: NO_GROUP, cube: None, message: message.to_string() },
            _ => return,
        };
        if !faults.iter().any(|known| (known.group, known.cube) == (fault.group, fault.cube)) {
            faults.push(fault);
        }
    }

    /// Rows of a window that could not be evaluated.
    pub fn faults_between(&self, start: Timestamp, end: Timestamp) -> impl Iterator<Item = &RowFault> {
        self.faults.range(start..end).flat_map(|(_, faults)| faults)
    }

    /// Forgets panes before an instant.
    pub fn forget_before(&mut self, floor: Timestamp) {
        let floor = floor.floor(self.pane);
        for filled in &mut self.cubes {
            filled.cube.forget_before(floor);
        }
        while self.faults.first_key_value().is_some_and(|(pane, _)| *pane < floor) {
            self.faults.pop_first();
        }
    }

    /// Moves a view to a window.
    pub fn slide(&mut self, view: usize, grouping: &mut Grouping, start: Timestamp, end: Timestamp) -> Result<()> {
        let Cluster { cubes, views, .. } = self;
        let view = &mut views[view];
        if view.slid.as_ref().is_some_and(|slid| slid.end == end && slid.counts.len() == grouping.len()) {
            return Ok(());
        }
        let rows = &mut cubes[ROWS].cube;
        rows.slide(view.rows, start, end);
        let counts = rows.answer(view.rows, grouping.len(), Question::Plain)?;
        let numbers = counts.as_primitive::<Int64Type>().values();
        view.last_seen.resize(numbers.len(), Timestamp::MIN);
        for (last_seen, count) in view.last_seen.iter_mut().zip(numbers) {
            if *count > 0 {
                *last_seen = end;
            }
        }
        let all = numbers.iter().all(|count| *count > 0);
        let present = (!all).then(|| {
            let present = numbers.iter().enumerate().filter(|(_, count)| **count > 0);
            UInt32Array::from_iter_values(present.map(|(group, _)| group as u32))
        });
        let keys = grouping.columns()?.iter().map(|column| only(column, present.as_ref()));
        let keys = keys.collect::<std::result::Result<Vec<_>, _>>()?;
        view.slid = Some(Slid { end, present, counts, answers: vec![None; view.slots.len()], keys });
        Ok(())
    }

    /// A view where [`Cluster::slide`] moved it.
    pub fn slid(&self, view: usize) -> Result<&Slid> {
        self.views[view].slid.as_ref().ok_or_else(not_moved)
    }

    /// The answers in a slot for the groups with rows, and where they lie, after [`Cluster::slide`].
    pub fn answers(
        &mut self,
        view: usize,
        slot: usize,
        groups: usize,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<(&ArrayRef, Bounds)> {
        let View { slots, slid, .. } = &mut self.views[view];
        let slid = slid.as_mut().ok_or_else(not_moved)?;
        let known = &mut slid.answers[slot];
        let (answers, bounds) = match known {
            Some(known) => known,
            None => {
                let Slot { cube, window, question } = slots[slot];
                let cube = &mut self.cubes[cube].cube;
                cube.slide(window, start, end);
                let answers = only(&cube.answer(window, groups, question)?, slid.present.as_ref())?;
                let bounds = Bounds::of(&answers);
                known.insert((answers, bounds))
            }
        };
        Ok((answers, *bounds))
    }
}

fn not_moved() -> DataFusionError {
    DataFusionError::Internal("a window was read before it was moved".to_string())
}

/// The elements of the groups with rows.
fn only(column: &ArrayRef, present: Option<&UInt32Array>) -> std::result::Result<ArrayRef, ArrowError> {
    match present {
        None => Ok(column.clone()),
        Some(present) => take(column, present, None),
    }
}
