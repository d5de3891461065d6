//go:build !linux

package daemon

import (
	"errors"
	"time"
)

type moment struct{ at time.Time }

func measure(uint64) (moment, error) { return moment{}, errors.ErrUnsupported }

func (m moment) until(moment) load { return load{} }

func worked() time.Duration { return 0 }
