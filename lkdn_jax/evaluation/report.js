for (const card of document.querySelectorAll('.card')) {
  const compare = card.querySelector('.compare');
  const range = compare.querySelector('input');
  const show = () => compare.style.setProperty('--x', range.value + '%');
  range.addEventListener('input', show);
  for (const radio of card.querySelectorAll('input[type=radio]'))
    radio.addEventListener('change', () => { compare.dataset.left = radio.value; });
  show();
}
