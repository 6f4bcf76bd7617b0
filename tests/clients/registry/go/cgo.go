//go:build cgo

// With this the program is linked with libc.
package main

import "C"
