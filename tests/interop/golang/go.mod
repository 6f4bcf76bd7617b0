module duplicates

go 1.19
