/* BSDs declare sysctl(3) here; the host has none. */
