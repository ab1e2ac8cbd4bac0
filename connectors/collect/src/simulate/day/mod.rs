//! A day of a whole fleet: every table that the bundled rules read, with training, serving, notebooks, streams, and all that
//! happens on a healthy day: checkpoints, deployments, restarts, glitches, gaps. Faults whose truth is known come on top
//! when asked for. The same options give the same rows, bit for bit.

mod bus;
mod faults;
mod feeds;
mod gpus;
mod groups;
mod happenings;
mod jobs;
mod links;
mod machines;
mod modules;
mod places;
mod serving;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use tidewatch_model::table::find_dimension;
use tidewatch_model::{Span, Timestamp};

use bus::Buses;
pub use faults::FaultTruth;
use feeds::{Feeds, STREAMS};
use gpus::Gpus;
use groups::Groups;
use happenings::{Calendar, Kind};
use jobs::Jobs;
use links::Wires;
use machines::Machines;
use modules::Modules;
use places::{IB_PORTS, PER_HOST, Places, Role};
use serving::{SERVICES, Serving};

use super::{SimulateError, Tick};
use crate::rows::{Rows, RowsError};

/// What to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct DayOptions {
    /// GPUs, eight to a machine.
    pub gpus: usize,
    /// Time between two rows of a GPU and of a machine; of other tables it is ten seconds.
    pub interval: Span,
    /// How much time.
    pub duration: Span,
    /// When it begins.
    pub start: Timestamp,
    /// The seed.
    pub seed: u64,
    /// How many faults come on top.
    pub faults: usize,
}

/// A fleet on its way through the day.
#[derive(Debug)]
pub struct Day {
    options: DayOptions,
    places: Places,
    calendar: Calendar,
    jobs: Jobs,
    gpus: Gpus,
    machines: Machines,
    wires: Wires,
    modules: Modules,
    buses: Buses,
    groups: Groups,
    serving: Serving,
    feeds: Feeds,
    now: i64,
}

/// Between two rows of most tables, seconds.
const SAMPLE: i64 = 10;
/// Between two reads of a GPU's slow columns, and of the PCIe bus, seconds.
const SLOW: i64 = 30;

impl Day {
    /// A fleet at its start.
    ///
    /// # Errors
    /// Options out of range.
    pub fn new(options: DayOptions) -> Result<Day, SimulateError> {
        let wrong =
            |what, value: String, expected: &str| SimulateError::Option { what, value, expected: expected.into() };
        if options.gpus < 64 || !options.gpus.is_multiple_of(PER_HOST) || options.gpus > 100_000 {
            return Err(wrong("the number of GPUs", options.gpus.to_string(), "64 to 100000, eight to a machine"));
        }
        if ![1, 2, 5, 10].map(Span::seconds).contains(&options.interval) {
            return Err(wrong("the interval", options.interval.to_string(), "1s, 2s, 5s or 10s"));
        }
        if options.duration < Span::minutes(10) || options.duration.0 % Span::seconds(SAMPLE).0 != 0 {
            return Err(wrong("the duration", options.duration.to_string(), "at least 10m, in steps of 10s"));
        }
        if options.faults > 0 && options.duration < Span::hours(8) {
            return Err(wrong("the duration", options.duration.to_string(), "at least 8h with faults"));
        }
        let (seed, start, seconds) = (options.seed, options.start, options.duration.0 / 1_000_000);
        let places = Places::new(options.gpus);
        let mut jobs = Jobs::new(&places, seconds, seed, start);
        let mut all = happenings::nuisances(&places, &jobs, SERVICES.len(), STREAMS.len(), seconds, seed);
        let faults = faults::faults(&places, &jobs, options.faults, seconds, seed, &all);
        // A nuisance in the midst of a fault would be a part of it.
        all.retain(|nuisance| {
            !faults.iter().any(|fault| {
                let same = fault.kind.of() == nuisance.kind.of() && fault.to == nuisance.to;
                same && nuisance.from < fault.until + 600 && fault.from < nuisance.until + 600
            })
        });
        all.extend(faults);
        jobs.set_outages(&all);
        let machines = Machines::new(&places, seed, start);
        Ok(Day {
            calendar: Calendar::new(all, places.gpus.len(), jobs.slots.len(), SERVICES.len(), STREAMS.len()),
            gpus: Gpus::new(&places, &jobs, seed, start)?,
            jobs,
            wires: Wires::new(&places, &machines, seed, start),
            modules: Modules::new(&places, &machines, seed, start),
            buses: Buses::new(&places, &machines, seed, start),
            groups: Groups::new(&places, seed, start),
            machines,
            serving: Serving::new(&places, seed, start),
            feeds: Feeds::new(seed, start),
            places,
            options,
            now: 0,
        })
    }

    /// What is true of the faults.
    pub fn truth(&self) -> Vec<FaultTruth> {
        faults::truth(&self.calendar.all, &self.places, &self.jobs, self.options.start)
    }

    /// The dimension tables that belong to the fleet: `expected`, and `maintenance` with the reboots that were planned.
    ///
    /// # Errors
    /// Columns that the registry does not have: a mistake here.
    pub fn dimensions(&self) -> Result<Vec<(&'static str, RecordBatch)>, RowsError> {
        let of = |table: &'static str, columns: Vec<ArrayRef>| {
            let schema = find_dimension(table).ok_or_else(|| RowsError::NoSuchTable(table.into()))?.schema();
            let batch = RecordBatch::try_new(schema, columns).map_err(|source| RowsError::Arrow { table, source })?;
            Ok((table, batch))
        };
        let hosts = &self.places.hosts;
        let training = |host: usize| self.places.roles[host] == Role::Training;
        let gpus = Int64Array::from(vec![PER_HOST as i64; hosts.len()]);
        let ports = (0..hosts.len()).map(|host| training(host).then_some(IB_PORTS as i64)).collect::<Int64Array>();
        let rates = (0..hosts.len()).map(|host| training(host).then_some(400.0)).collect::<Float64Array>();
        let names = StringArray::from_iter_values(hosts);
        let planned: Vec<_> =
            self.calendar.all.iter().filter(|happening| happening.kind == Kind::PlannedReboot).collect();
        let times = |of: &dyn Fn(usize) -> i64| -> ArrayRef {
            let instants = (0..planned.len()).map(|at| (self.options.start + Span::seconds(of(at))).0);
            Arc::new(TimestampMicrosecondArray::from_iter_values(instants).with_timezone("UTC"))
        };
        let machines = StringArray::from_iter_values(planned.iter().map(|happening| &hosts[happening.to]));
        let notes = StringArray::from(vec!["new kernel"; planned.len()]);
        Ok(vec![
            of("expected", vec![Arc::new(names), Arc::new(gpus), Arc::new(ports), Arc::new(rates)])?,
            of(
                "maintenance",
                vec![
                    Arc::new(machines),
                    times(&|at| planned[at].from - 300),
                    times(&|at| planned[at].until + 900),
                    Arc::new(notes),
                ],
            )?,
        ])
    }

    /// The next tick; `None` after the last.
    ///
    /// # Errors
    /// Rows that can't be made: a mistake here.
    pub fn next_tick(&mut self) -> Option<Result<Tick, SimulateError>> {
        if Span::seconds(self.now) >= self.options.duration {
            return None;
        }
        Some(self.tick().map_err(SimulateError::from))
    }

    fn tick(&mut self) -> Result<Tick, RowsError> {
        let Day { options, places, calendar, jobs, gpus, machines, wires, modules, buses, groups, serving, feeds, now } =
            self;
        let (step, at) = (options.interval.0 / 1_000_000, *now);
        let end = at + step;
        let begun = calendar.advance(at, end);
        let ts = options.start + Span::seconds(at);
        let (steps, events) = jobs.advance(at, end, places, &calendar.marks.slots)?;
        let load = serving.load(places.hosts.len());
        gpus.step(at, step as f64, places, jobs, &calendar.marks, &load);
        let gpu_events = gpus.events(at, end, places, &begun, calendar.active())?;
        let repaired = |kind| matches!(kind, Kind::GpuOffBus | Kind::Uncorrectable);
        for happening in calendar.active().filter(|happening| repaired(happening.kind) && happening.until <= end) {
            gpus.repair(happening.to);
        }
        let slow = at % SLOW < step;
        let mut batches = vec![("gpu", gpus.rows(at, slow, places, jobs, &calendar.marks)?)];
        let mut add = |table: &'static str, rows: Rows| -> Result<(), RowsError> {
            batches.extend(rows.finish()?.map(|batch| (table, batch)));
            Ok(())
        };
        add("host", machines.rows(at, step as f64, places, jobs, &calendar.marks)?)?;
        add("gpu_event", gpu_events)?;
        add("kernel_event", machines.said(at, end, places, calendar.active())?)?;
        add("train_step", steps)?;
        add("job_event", events)?;
        wires.note(&begun);
        modules.note(&begun);
        buses.note(&begun);
        groups.note(&begun);
        feeds.note(&begun);
        if at % SAMPLE == 0 {
            add("gpu_process", gpus.processes(ts, places, jobs, &calendar.marks)?)?;
            let (processes, collectors) = machines.others(ts, places, &calendar.marks)?;
            add("process", processes)?;
            add("collector", collectors)?;
            let [disks, nets, ports] = wires.rows(at, places, machines, &calendar.marks)?;
            add("disk", disks)?;
            add("net", nets)?;
            add("ib", ports)?;
            add("memory_controller", modules.rows(at, places, machines, &calendar.marks, calendar.active())?)?;
            add("cgroup", groups.rows(at, places, jobs, gpus, serving, &calendar.marks)?)?;
            if slow {
                add("pcie", buses.rows(at, places, machines, gpus, &calendar.marks, calendar.active())?)?;
            }
            let deployed: Vec<(usize, i64)> = calendar
                .active()
                .filter(|happening| happening.kind == Kind::Deployment)
                .map(|happening| (happening.to, happening.from))
                .collect();
            let (replicas, buckets) = serving.rows(at, places, &calendar.marks, &deployed)?;
            add("serve", replicas)?;
            add("serve_histogram", buckets)?;
            add("data_job", feeds.jobs(at, &calendar.marks)?)?;
            batches.push(("metrics", feeds.metrics(at, &calendar.marks)?));
        }
        *now = end;
        Ok(Tick { ts, batches })
    }
}

#[cfg(test)]
mod tests;
