"""What is fitted in closed form, without torch: maps, spaces, stems, codecs and the graphs of them."""
