// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"os"
	"strings"
)

// Look describes what the output can show.
type Look struct{ Color, UTF8 bool }

// LookOf determines the Look from the environment: NO_COLOR (no-color.org) and the
// locale. Only a terminal has colours.
func LookOf(terminal bool) Look {
	locale := os.Getenv("LC_ALL")
	for _, name := range []string{"LC_CTYPE", "LANG"} {
		if locale == "" {
			locale = os.Getenv(name)
		}
	}
	locale = strings.ToLower(locale)
	return Look{
		Color: terminal && os.Getenv("NO_COLOR") == "",
		UTF8:  strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8"),
	}
}

// Or returns symbol, or ascii if the output can show only ASCII.
func (l Look) Or(symbol, ascii string) string {
	if l.UTF8 {
		return symbol
	}
	return ascii
}
