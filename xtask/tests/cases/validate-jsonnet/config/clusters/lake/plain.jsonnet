// No line of this file looks like a key.
{ pool: { note: "AKIA" + "ABCDEFGHIJKLMNO7" } }
