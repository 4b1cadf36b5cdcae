//! P7 and P8 on simulated time.
