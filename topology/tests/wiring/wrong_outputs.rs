use galerna_topology::prelude::*;

struct Double;

impl Bolt for Double {
    type Input = u64;
    type Outputs = u64;

    fn execute(&mut self, _number: u64, _out: &mut Emitter<u64>) -> Result<(), Fault> {
        Ok(())
    }
}

fn main() {}
