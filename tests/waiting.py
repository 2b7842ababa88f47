"""How long tests wait for what is going to happen: they find out that it hangs, not how fast it is."""

#: Seconds. On a busy machine a job of one minute has taken ten.
LONG = 900
