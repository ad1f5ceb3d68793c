"""What a run takes, before it is made: operations, bytes and the way to run it, from sizes and the network itself."""
