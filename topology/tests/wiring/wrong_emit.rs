use galerna_topology::prelude::*;

outputs! {
    pub struct Checked {
        valid: u64,
        rejected: String,
    }
}

struct Check;

impl Bolt for Check {
    type Input = u64;
    type Outputs = Checked;

    fn execute(&mut self, number: u64, out: &mut Emitter<Checked>) -> Result<(), Fault> {
        out.rejected.emit(number);
        Ok(())
    }
}

fn main() {}
