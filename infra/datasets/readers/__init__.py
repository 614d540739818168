"""One file a format of raw scans, all behind `readers.base.Reader`."""
