//! Where things are in the day's fleet: machines, their GPUs, what each machine is for, and dice for everything random.

use tidewatch_model::ports::Random;
use tidewatch_model::scripted::SeededRandom;

/// GPUs on a machine.
pub const PER_HOST: usize = 8;
/// InfiniBand ports on a machine that trains.
pub const IB_PORTS: usize = 8;

/// What a machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Training jobs under Slurm.
    Training,
    /// Replicas of inference services under Kubernetes: its GPUs have no Slurm job.
    Serving,
    /// Notebooks, a GPU each.
    Notebooks,
}

/// Machines and GPUs.
#[derive(Debug)]
pub struct Places {
    /// Names of machines.
    pub hosts: Vec<String>,
    /// What they are for.
    pub roles: Vec<Role>,
    /// Names of GPUs, eight to a machine.
    pub gpus: Vec<String>,
}

impl Places {
    /// Of so many GPUs: 64 in 100 machines train, 24 serve, the others are for notebooks.
    pub fn new(gpus: usize) -> Places {
        let hosts = gpus / PER_HOST;
        let (training, serving) = (hosts * 64 / 100, hosts * 24 / 100);
        let role = |host: usize| match host {
            host if host < training => Role::Training,
            host if host < training + serving => Role::Serving,
            _ => Role::Notebooks,
        };
        Places {
            hosts: (0..hosts).map(|host| format!("node-{host:04}")).collect(),
            roles: (0..hosts).map(role).collect(),
            gpus: (0..hosts * PER_HOST).map(|gpu| format!("GPU-{:08x}", gpu + 1)).collect(),
        }
    }

    /// Machines with this role.
    pub fn with(&self, role: Role) -> std::ops::Range<usize> {
        let first = self.roles.iter().position(|other| *other == role).unwrap_or(self.hosts.len());
        first..first + self.roles.iter().filter(|other| **other == role).count()
    }
}

/// GPUs of machines.
pub fn gpus_of(hosts: &std::ops::Range<usize>) -> std::ops::Range<usize> {
    hosts.start * PER_HOST..hosts.end * PER_HOST
}

/// Dice: the same seed throws the same.
#[derive(Debug)]
pub struct Dice(SeededRandom);

impl Dice {
    /// Dice of their own for each purpose, so that one more throw here changes nothing there.
    pub fn new(seed: u64, purpose: u64) -> Dice {
        Dice(SeededRandom::new(seed ^ purpose.wrapping_mul(0xD6E8_FEB8_6659_FD93)))
    }

    /// From 0 to 1.
    pub fn unit(&self) -> f64 {
        self.0.unit()
    }

    /// From -1 to 1.
    pub fn noise(&self) -> f64 {
        self.0.unit() * 2.0 - 1.0
    }

    /// Five numbers from -1 to 1 out of one throw, 12 bits each.
    pub fn five(&self) -> [f64; 5] {
        let bits = self.0.next_u64();
        std::array::from_fn(|at| f64::from((bits >> (12 * at)) as u32 & 0xFFF) / 2_047.5 - 1.0)
    }

    /// From `least` up to, and without, `most`.
    pub fn between(&self, least: i64, most: i64) -> i64 {
        least + (self.0.next_u64() % (most - least).max(1) as u64) as i64
    }

    /// One of a range.
    pub fn of(&self, range: std::ops::Range<usize>) -> usize {
        range.start + (self.0.next_u64() % range.len().max(1) as u64) as usize
    }

    /// Whether it happens.
    pub fn chance(&self, probability: f64) -> bool {
        self.unit() < probability
    }
}
