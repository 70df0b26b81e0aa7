"""Public data sets by name: fetched from their official addresses, verified, laid out as class folders."""
