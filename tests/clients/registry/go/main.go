// A new client for every operation, by gomemcache. Ends with the line ANSWERED WRONG FDS.
package main

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

func valueOf(key string) string {
	return "value-of-" + key
}

func lookUp(key string) (string, error) {
	client := memcache.New(os.Getenv("APP_SERVER"))
	client.Timeout = 10 * time.Second
	defer client.Close()
	if err := client.Set(&memcache.Item{Key: key, Value: []byte(valueOf(key))}); err != nil {
		return "", err
	}
	item, err := client.Get(key)
	if err != nil {
		return "", err
	}
	return string(item.Value), nil
}

func openFiles() int {
	files, _ := os.ReadDir("/proc/self/fd")
	return len(files)
}

func main() {
	operations, _ := strconv.Atoi(os.Getenv("APP_OPERATIONS"))
	concurrency, _ := strconv.Atoi(os.Getenv("APP_CONCURRENCY"))
	var answered, wrong atomic.Int64
	var workers sync.WaitGroup
	keys := make(chan string)
	// The first connect() of a program opens what the runtime polls with.
	lookUp("first")
	files := openFiles()
	for range concurrency {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for key := range keys {
				switch value, err := lookUp(key); {
				case err != nil:
					fmt.Fprintln(os.Stderr, key, err)
				case value == valueOf(key):
					answered.Add(1)
				default:
					wrong.Add(1)
					fmt.Fprintln(os.Stderr, key, "has", value)
				}
			}
		}()
	}
	for number := range operations {
		keys <- fmt.Sprint("key-", number)
	}
	close(keys)
	workers.Wait()
	fmt.Println(answered.Load(), wrong.Load(), openFiles()-files)
	if int(answered.Load()) != operations {
		os.Exit(1)
	}
}
