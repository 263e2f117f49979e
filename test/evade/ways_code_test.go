// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

//go:build measure

package evade

// calls of 32 bits, by which the kernel is entered elsewhere.
func calls32() []way {
	return []way{
		{name: "open by a program of 32 bits", targets: byName, code: byProgram(program32, readBy32())},
		{name: "open by a call of 32 bits in a program of 64", targets: byName, code: byProgram(program64, readBy32())},
	}
}

func writes32() []way {
	return []way{
		{name: "truncate by a program of 32 bits", targets: ro, code: byProgram(program32, truncateBy32())},
		{name: "truncate by a call of 32 bits in a program of 64", targets: ro, code: byProgram(program64, truncateBy32())},
	}
}

// borrowings of an overlay: a file of one layer has the data of another's, whatever that is called.
func borrowings() []way {
	return []way{
		{name: "file of an overlay that takes its data from elsewhere", who: rootOnly, targets: byName, code: borrowed},
	}
}

// makingsMore of something in a blocked directory.
func makingsMore() []way {
	return []way{
		{name: "make a directory by io_uring", targets: made, code: ringMake(ringMkdir)},
		{name: "make a symlink by io_uring", targets: made, code: ringMake(ringSymlink)},
		{name: "hard link by io_uring", targets: made, code: ringMake(ringLink)},
		{name: "name for a file that had none", targets: made, code: namedLater},
		{name: "socket", targets: made, code: boundSocket},
		{name: "make a directory through a held one", targets: made, code: heldMkdir},
		{name: "create by a program of 32 bits", targets: made, code: madeBy32},
	}
}

// inside an allowed program: it is what it was, and does what it is made to do.
func inside() []way {
	return []way{
		{name: "a library that it is made to load", targets: source, limit: limitInside, code: preloaded},
		{name: "code that a debugger puts into it", targets: source, limit: limitInside, code: traced},
	}
}

func racesLate() []way {
	return []way{
		{name: "name that ends while the kernel reads it", who: rootOnly, targets: byName, code: lateName},
	}
}
