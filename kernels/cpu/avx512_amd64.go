package cpu

// avx512 is avx2 with those loops replaced that gain much from wider registers.
func avx512() instructions {
	set := avx2()
	narrow := set
	set.name = "AVX-512"
	set.randomWords = func(dst []uint32, key [2]uint32, counter [4]uint32) {
		n := len(dst) &^ 127
		if n > 0 {
			randomWordsAVX512(&dst[0], n/128, &key, &counter)
			counter[0] += uint32(n / 4)
		}
		narrow.randomWords(dst[n:], key, counter)
	}
	return set
}
