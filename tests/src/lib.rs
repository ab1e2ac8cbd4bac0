//! Tests of the workspace as a whole: which crate may import which, and one version of each thing that must be one.
