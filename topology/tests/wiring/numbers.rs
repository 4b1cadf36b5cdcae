// Shared by the cases: a spout of numbers and a bolt that takes words.
use galerna_topology::prelude::*;

pub struct Numbers;

impl Spout for Numbers {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, _out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        Ok(Next::Done)
    }
}

pub struct Words;

impl Bolt for Words {
    type Input = String;
    type Outputs = ();

    fn execute(&mut self, _word: String, _out: &mut Emitter<()>) -> Result<(), Fault> {
        Ok(())
    }
}
