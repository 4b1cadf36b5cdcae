use galerna_topology::prelude::*;

struct Sink;

impl Bolt for Sink {
    type Input = u64;
    type Outputs = ();

    fn execute(&mut self, number: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
        out.emit(number);
        Ok(())
    }
}

fn main() {}
