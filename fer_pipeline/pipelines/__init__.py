"""One public function per job, from its inputs on disk to its outputs on disk."""
