// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// A dynamically linked program that prints: what the dynamic loader is needed for.

#include <stdio.h>

int main(void)
{
	puts("hello");
	return 0;
}
