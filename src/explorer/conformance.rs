//! Whether the simulated disk knows what real ones do.
//!
//! The explorer's lives are played on a file system that is shut down, as by a power cut, where each ends. What is there
//! when it is mounted again has to be one of the states that the simulated power cut may have left; and it is opened and
//! checked like those. `OTTLA_CUTS` sets how many lineages are played on each.

#![cfg(target_os = "linux")]

use crate::chance::told;
use crate::explorer::Tally;
use crate::explorer::lineage::Lineage;
use crate::explorer::mounted::Kind;
use crate::explorer::mounted::Mounted;
use crate::explorer::mounted::skipped;
use crate::explorer::seed;

#[test]
fn what_a_real_power_cut_leaves_is_one_of_the_states_of_the_simulated_one() {
    let count = told("OTTLA_CUTS").unwrap_or(3);
    for kind in [Kind::Ext4, Kind::Xfs] {
        let Some(mounted) = Mounted::new(kind) else { continue };
        if let Err(error) = mounted.shut_down() {
            skipped(&format!("this kernel cannot shut {kind:?} down: {error}"));
            continue;
        }
        assert!(mounted.unmount() && mounted.mount());
        let tally = Tally::default();
        for n in 0..count {
            let mut lineage = Lineage::new(seed(n), None, &tally);
            lineage.play_for_real(&mounted, n).unwrap_or_else(|wrong| panic!("{kind:?}: {wrong}"));
        }
        println!(
            "{kind:?}: {count} lineages of power cuts, {} recoveries, all states known to the simulated disk",
            tally.recoveries.into_inner()
        );
    }
}
