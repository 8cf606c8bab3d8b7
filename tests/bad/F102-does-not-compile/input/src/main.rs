a mistake
