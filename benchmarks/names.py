"""Names as in a South African register: population groups, their shares, and their names, the most frequent first.

They are composed by hand for this benchmark and not taken from a list of real persons.
"""

from typing import NamedTuple


class Population(NamedTuple):
    """A population group with its own distribution of names."""

    share: float
    """The share of all patients, relative to the shares of the others."""
    race: str
    """In the terms of South Africa's census."""
    female_names: list[str]
    male_names: list[str]
    last_names: list[str]


def split_names(text: str) -> list[str]:
    """Return the comma-separated names of a text, many of which have several words."""
    return [" ".join(name.split()) for name in text.split(",")]


def _population(share: float, race: str, female: str, male: str, last: str) -> Population:
    return Population(share, race, split_names(female), split_names(male), split_names(last))


POPULATIONS = {
    "Zulu": _population(
        0.21,
        "Black African",
        """Nomvula, Thandiwe, Nokuthula, Zanele, Nomusa, Ntombi, Sibongile, Thembi, Nonhlanhla, Lindiwe, Bongiwe,
        Busisiwe, Nandi, Phumzile, Hlengiwe, Zandile, Khanyisile, Sindisiwe, Nompumelelo, Thobile, Gugu, Londiwe,
        Nqobile, Ayanda, Samkelisiwe, Thabisile, Jabulile, Nomthandazo, Ntokozo, Zinhle, Simangele, Philile,
        Nontobeko, Duduzile, Fikile, Lungile, Minenhle, Nokwanda, Sithembile, Thulisile, Xolile, Zodwa, Nomcebo,
        Sizakele, Balungile, Hloniphile, Nosipho, Mbali, Snenhlanhla, Wendy""",
        """Sipho, Bongani, Themba, Sibusiso, Mandla, Nhlanhla, Sandile, Thulani, Musa, Siyabonga, Mthokozisi,
        Jabulani, Vusi, Lungelo, Nkosinathi, Mduduzi, Sifiso, Zakhele, Muzi, Bhekizizwe, Dumisani, Khulekani, Lindani,
        Mfanafuthi, Njabulo, Phumlani, Sakhile, Senzo, Simphiwe, Sizwe, Thabani, Vukani, Wandile, Xolani, Zamani,
        Zweli, Ayanda, Bhekani, Celani, Falakhe, Gcina, Hlanganani, Langa, Menzi, Mthunzi, Nduduzo, Sanele,
        Siphesihle, Thamsanqa, Velaphi""",
        """Dlamini, Nkosi, Ndlovu, Khumalo, Mkhize, Zulu, Sithole, Mthembu, Buthelezi, Cele, Ngcobo, Zungu, Shabalala,
        Ntuli, Hadebe, Gumede, Mhlongo, Majola, Biyela, Mchunu, Zondi, Zwane, Mbatha, Radebe, Mazibuko, Xaba, Nxumalo,
        Vilakazi, Msomi, Dube, Ngubane, Mabaso, Magwaza, Myeni, Sibiya, Shezi, Thusi, Xulu, Mdluli, Mtshali, Ndaba,
        Nene, Mncube, Khoza, Kubheka, Langa, Luthuli, Madonsela, Manqele, Masondo, Maphumulo, Mlambo, Mpanza, Mzimela,
        Ngema, Nyembe, Nzimande, Phakathi, Sikhakhane, Simelane, Sokhela, Tshabalala, Wanda, Zikhali, Zuma, Gwala,
        Hlatshwayo, Hlongwane, Jali, Kunene, Linda, Mavuso, Mbonambi, Mthethwa, Mkhwanazi, Ndwandwe, Nhleko, Qwabe,
        Sibisi, Makhanya""",
    ),
    "Xhosa": _population(
        0.15,
        "Black African",
        """Nomsa, Nosipho, Noluthando, Nomfundo, Lulama, Nolwazi, Thandeka, Zukiswa, Nomonde, Nombulelo, Bulelwa,
        Nokuzola, Andiswa, Asanda, Babalwa, Funeka, Khanyisa, Lindelwa, Mandisa, Nceba, Ntombizanele, Nwabisa,
        Olwethu, Phumeza, Pumla, Siphokazi, Sisipho, Thembisa, Unathi, Vuyokazi, Xoliswa, Yolanda, Zandile, Zikhona,
        Aphiwe, Akhona, Busiswa, Hombakazi, Landiswa, Lusanda, Nontsikelelo, Odwa, Qaqamba, Sinazo, Zoleka,
        Zimkhitha""",
        """Sizwe, Luyanda, Mzwandile, Siyanda, Lwazi, Thabiso, Ayanda, Bulelani, Andile, Athi, Bongile, Fikile,
        Gcobani, Khaya, Kwanele, Lonwabo, Luvuyo, Lukhanyo, Madoda, Makhaya, Masixole, Mbulelo, Mcebisi, Monde,
        Mxolisi, Ncedo, Ntsikelelo, Odwa, Phakamile, Phila, Sabelo, Sakhumzi, Sandiso, Sikhumbuzo, Siphiwo, Sivuyile,
        Sonwabile, Thando, Thembinkosi, Vuyo, Vuyisile, Xola, Zolani, Zukile, Zwelethu""",
        """Mabuza, Mbeki, Sobukwe, Mxenge, Ngxamngxa, Ntshinga, Qunta, Sigcau, Tshaka, Xuma, Yako, Zokufa, Bavuma,
        Booi, Cewu, Dyani, Dyantyi, Fani, Gcaba, Gqirana, Gqola, Hani, Jack, Jacobs, Jafta, Jonas, Klaas, Kondlo,
        Kwinana, Lolwana, Madikizela, Magqabi, Makalima, Makhanda, Mandela, Mangcu, Mapisa, Matanzima, Matiwane,
        Matshikiza, Mbangeni, Mbekeni, Mfeketo, Mgijima, Mhlaba, Mjoli, Mkhonto, Mngqikana, Mpahlwa, Mqhayi, Msimang,
        Mtimkulu, Mtshizana, Mvalo, Ncapayi, Ndamase, Ndungane, Ngcuka, Ngesi, Ngqula, Njongo, Nkwinti, Nobatana,
        Nomvete, Nqakula, Ntantala, Ntloko, Nyoka, Peter, Qhina, Rala, Saliwa, Sandi, Sihlali, Sisulu, Skweyiya,
        Sontonga, Tambo, Tutu, Vena, Zibi""",
    ),
    "Sotho and Tswana": _population(
        0.18,
        "Black African",
        """Lerato, Dineo, Palesa, Refilwe, Mpho, Boitumelo, Kelebogile, Keitumetse, Tebogo, Naledi, Puleng, Mamello,
        Nthabiseng, Limpho, Dikeledi, Masego, Kgomotso, Katlego, Lesego, Tshepiso, Onalenna, Gaone, Bontle, Karabo,
        Khomotso, Mosa, Thato, Reabetswe, Retshepile, Matshidiso, Malebo, Maserame, Pontsho, Sebolelo, Selloane,
        Seipati, Tlotlisang, Tshegofatso, Mmapula, Mokgadi, Ramasela, Rethabile, Tumelo, Omphile, Oratile""",
        """Thabo, Tshepo, Kabelo, Katlego, Lebogang, Mpho, Tebogo, Thabang, Tumelo, Karabo, Kagiso, Lehlohonolo,
        Lerato, Mohau, Molefi, Neo, Lebohang, Obakeng, Oupa, Pule, Refiloe, Rorisang, Sello, Teboho, Thato, Tiisetso,
        Tlhogi, Tsietsi, Khotso, Kgotso, Kopano, Lesiba, Letlhogonolo, Malefetsane, Matome, Modise, Moeketsi, Mokete,
        Motheo, Phenyo, Phuti, Rapula, Sechaba, Tau, Tefo, Thapelo, Tokelo, Tshegofatso""",
        """Mokoena, Molefe, Mofokeng, Motaung, Tau, Moloi, Maseko, Mahlangu, Modise, Phiri, Sebola, Kgatla, Kekana,
        Ledwaba, Mashaba, Maake, Mabena, Mabe, Mogale, Mogotsi, Mohapi, Mokgosi, Molapo, Moroka, Mosia, Mothibi,
        Motsepe, Motsoaledi, Mphahlele, Nkoane, Nkuna, Ntsoane, Phala, Pitso, Pule, Rakgoale, Ramaphosa, Ramokgopa,
        Rapetsoa, Sefako, Seabi, Sekhukhune, Selepe, Semenya, Serote, Setlhare, Sithebe, Tlhabi, Tladi, Tlou,
        Thobejane, Tsotetsi, Tshabalala, Lekota, Lebese, Legodi, Lekganyane, Letsie, Letsoalo, Mabotja, Machaka,
        Maluleka, Mamabolo, Manamela, Marumo, Masemola, Mathabatha, Matlala, Mojapelo, Mokwena, Monyai, Moshoeshoe,
        Mosala, Motloung, Nchabeleng, Khoabane, Kgosana, Kgomo, Dikgale, Choshi, Aphane""",
    ),
    "Venda and Tsonga": _population(
        0.06,
        "Black African",
        """Tsakani, Rirhandzu, Nyeleti, Khensani, Tintswalo, Ndivhuwo, Rudzani, Azwindini, Livhuwani, Mashudu,
        Takalani, Tshilidzi, Vhutshilo, Hlamalani, Basani, Mikateko, Nkhensani, Rhulani, Vutlhari, Tirhani, Fhatuwani,
        Mulalo, Pfarelo, Shonisani, Thivhulawi""",
        """Rendani, Mulalo, Tshifhiwa, Azwinndini, Khathutshelo, Lufuno, Mpfariseni, Ndivhudza, Phathutshedzo,
        Thivhilaeli, Hlulani, Tinyiko, Vutomi, Nyiko, Rivoningo, Risimati, Xitshembiso, Amukelani, Dzunisani, Fumani,
        Kulani, Matimba, Ntsako, Tiyani, Wisani""",
        """Mudau, Ramovha, Netshitenzhe, Mulaudzi, Nemutanzhela, Tshivhase, Ravele, Munyai, Nethononda, Rambau,
        Ramabulana, Ndou, Sigwavhulimu, Thovhakale, Makhado, Maluleke, Chauke, Baloyi, Mathebula, Hlungwani, Mabunda,
        Makhubele, Makhubela, Manganyi, Mashele, Mkhabela, Mushwana, Ngobeni, Nkuna, Rikhotso, Shirinda, Shivambu,
        Sambo, Valoyi, Mtileni, Mabasa, Nxumalo, Khosa, Ndlovu, Mdaka""",
    ),
    "Afrikaans": _population(
        0.13,
        "White",
        """Anika, Elize, Annelie, Marlene, Hester, Johanna, Maria, Susanna, Petronella, Magdalena, Elsabé, Zoë,
        Chanté, Mariëtte, Riëtte, Anneké, Sunét, Liezl, Marizanne, Carien, Corné, Danelle, Elmarie, Esmé, Gerda,
        Hannelie, Ilse, Ilze, Ina, Jacoba, Karin, Karlien, Lizelle, Madelein, Marina, Mia, Minette, Nadine, Nerina,
        Rika, Rina, Sanet, Santie, Tanya, Tersia, Yolandi, Wilna, Renée, Adèle, Lunè""",
        """Johan, Pieter, Hendrik, Jacobus, Gerhard, Willem, Francois, Christiaan, Stephanus, Andries, Petrus,
        Johannes, Daniël, Michiel, Dawid, Abraham, Barend, Coenraad, Cornelius, Danie, Deon, Dirk, Etienne, Ettienne,
        Frederik, Gideon, Hannes, Heinrich, Henk, Hugo, Izak, Jaco, Jan, Jannie, Kobus, Koos, Kosie, Leon, Louis,
        Marius, Martinus, Morné, Nico, Niël, Ockert, Philippus, Riaan, Rudolph, Schalk, Theunis, André, René""",
        """Botha, van der Merwe, Pretorius, van Wyk, Nel, Venter, du Plessis, Coetzee, Smit, Fourie, Kruger, Steyn,
        van Niekerk, Joubert, Swanepoel, Erasmus, Viljoen, Jacobs, Visser, Potgieter, Meyer, Louw, du Toit, de Beer,
        van Rensburg, Janse van Rensburg, van Zyl, Vermeulen, Lombard, Oosthuizen, Labuschagne, Grobler, Malan,
        Marais, Bezuidenhout, Booysen, Strydom, de Klerk, le Roux, Roux, Theron, Vorster, Wessels, van Heerden, van
        Jaarsveld, van Tonder, Barnard, Bester, Bosman, Brits, Burger, Cilliers, Conradie, Cronjé, de Bruyn, de Jager,
        de Villiers, de Wet, Dreyer, Engelbrecht, Ferreira, Geldenhuys, Greyling, Groenewald, Hattingh, Hugo, Human,
        Jordaan, Kotzé, Laubscher, Lötter, Maritz, Mostert, Müller, Naudé, Olivier, Opperman, Pienaar, Prinsloo,
        Rossouw, Scheepers, Schoeman, Snyman, Terblanche, Truter, Uys, Vosloo, Wolmarans, Öhlschläger""",
    ),
    "Cape": _population(
        0.07,
        "Coloured",
        """Fatima, Shireen, Charmaine, Bronwyn, Chantal, Denise, Desiree, Faiza, Gadija, Ilhaam, Jolene, Lameez,
        Lee-Ann, Magdalene, Mishka, Nadia, Nazeema, Rashieda, Rochelle, Rugaya, Sharon, Shamiela, Tasneem, Tracey-Lee,
        Vanessa, Yumna, Zainab, Zulaikha, Candice, Abigail""",
        """Yusuf, Achmat, Ashley, Ashraf, Brandon, Cheslin, Clinton, Craig, Dillon, Ebrahim, Faizel, Gavin, Igshaan,
        Ismail, Jerome, Keenan, Luqmaan, Marlin, Moegamat, Nazeem, Quinton, Randall, Rashied, Riedwaan, Shafiek,
        Taariq, Tyrone, Wayde, Winston, Zubayr""",
        """Adams, Abrahams, Jacobs, Davids, Williams, Petersen, Fortuin, Isaacs, Hendricks, Daniels, Arendse,
        Solomons, September, February, April, Adonis, Apollis, Baadjies, Booysen, Cupido, Damons, Fredericks,
        Gabriels, Hartnick, Jaftha, Kannemeyer, Klaasen, Lakay, Lategan, Manuel, Moses, Naidoo, October, Parker,
        Philander, Plaatjies, Rhoda, Samaai, Samsodien, Swarts, Titus, van der Ross, van Rooyen, Waggie, Witbooi,
        Salie, Kamaldien""",
    ),
    "English": _population(
        0.08,
        "White",
        """Mary, Jennifer, Susan, Elizabeth, Sarah, Margaret, Emma, Kate, Catherine, Nicola, Michelle, Samantha,
        Claire, Rebecca, Amy, Jessica, Megan, Lauren, Tracy, Debbie, Helen, Jane, Alison, Gillian, Heather, Hannah,
        Charlotte, Olivia, Chloe, Siobhán, Fiona, Bridget, Victoria, Anne-Marie, Philippa, Rosemary, Lynette,
        Beverley, Robyn, Tamsin""",
        """John, David, Michael, Peter, Robert, James, Paul, Andrew, Mark, Richard, Christopher, Stephen, Matthew,
        Brian, Kevin, Ian, Graham, Gary, Trevor, Neil, Simon, Timothy, Anthony, Bruce, Duncan, Sean, Seán, Ryan,
        Jonathan, Nicholas, Patrick, Rory, Gareth, Dylan, Liam, Oliver, Luke, Benjamin, Thomas, William""",
        """Smith, Jones, Williams, Brown, Johnson, Taylor, Thomas, Roberts, Wilson, Evans, Walker, Wright, Robinson,
        Thompson, White, Hughes, Edwards, Green, Hall, Wood, Harris, Lewis, Martin, Jackson, Clarke, Clark, Turner,
        Hill, Scott, Cooper, Morris, Ward, Moore, King, Watson, Baker, Harrison, Morgan, Patel, Young, Allen,
        Mitchell, James, Anderson, Phillips, Lee, Bell, Parker, Davis, Bennett, Miller, Cook, Shaw, Cameron, Campbell,
        Stewart, MacDonald, McKenzie, O'Brien, O'Connor, O'Neill, Murphy, Kelly, Ryan, Johnston, Johnstone, Jonson,
        Fitzgerald, Whitehead, Pringle""",
    ),
    "Indian": _population(
        0.05,
        "Indian or Asian",
        """Priya, Kavitha, Anjali, Nirmala, Shanti, Saras, Pooja, Deepa, Meera, Lalitha, Sunitha, Ayesha, Zaheera,
        Nisha, Rekha, Sharmila, Thilagavathi, Usha, Vasanthi, Yashodha, Devi, Indira, Jayshree, Kamala, Kogie,
        Logashnee, Mogie, Nerusha, Preshantha, Roshnee""",
        """Rajesh, Vikram, Anand, Suresh, Ravi, Kumaran, Dhanesh, Ashwin, Imraan, Mohammed, Naresh, Pravin, Sanjay,
        Selvan, Thiru, Yogan, Vishal, Krish, Logan, Kovilan, Deenadayalan, Arjun, Aslam, Farouk, Goolam, Hoosen,
        Kesavan, Morgan, Nithin, Rishi""",
        """Naidoo, Pillay, Govender, Moodley, Reddy, Naicker, Chetty, Singh, Maharaj, Patel, Khan, Padayachee,
        Perumal, Ramsamy, Subramoney, Munsamy, Gounden, Ramdass, Bhana, Desai, Essop, Ebrahim, Moosa, Cassim, Vawda,
        Hassan, Mohamed, Ismail, Rajah, Sewpersad, Lalla, Gopal, Harilal, Mistry, Nair, Iyer, Vadivelu, Veerasamy,
        Valodia, Nagiah""",
    ),
    "Shona and Ndebele": _population(
        0.03,
        "Black African",
        """Tariro, Rudo, Chipo, Tendai, Nyasha, Rutendo, Tatenda, Shamiso, Ropafadzo, Vimbai, Kudzai, Memory,
        Blessing, Fadzai, Sithembiso, Nobuhle""",
        """Tendai, Tinashe, Farai, Tafadzwa, Takudzwa, Munashe, Kudakwashe, Simbarashe, Tapiwa, Blessing, Tawanda,
        Ngonidzashe, Innocent, Mthulisi, Nkosana, Bhekumuzi""",
        """Moyo, Ncube, Sibanda, Chikwanha, Mutasa, Chigumba, Mapfumo, Mugabe, Nyathi, Chirwa, Makoni, Gumbo, Zhou,
        Hove, Marufu, Chinamasa, Mukwazhi, Tshuma, Mpofu, Mhlanga, Chiweshe, Nyoni""",
    ),
    "Portuguese": _population(
        0.015,
        "White",
        """Maria, Ana, Conceição, Fátima, Inês, Luísa, Patrícia, Sílvia, Mónica, Joana, Cátia, Sónia, Vânia, Lúcia,
        Graça""",
        """João, José, António, Luís, Tomás, Nuno, Gonçalo, Vítor, Sérgio, Álvaro, Paulo, Ricardo, Simão, Estêvão,
        Manuel""",
        """da Silva, dos Santos, Ferreira, Pereira, Gonçalves, Gouveia, Rodrigues, de Sousa, Conceição, Araújo,
        Magalhães, Simões, Guimarães, Macuácua, Nhantumbo, Mondlane, Chissano, Machel, Assunção, Brandão""",
    ),
    "Arabic": _population(
        0.02,
        "Other",
        """Fatima, Aisha, Khadija, Maryam, Zaynab, Layla, Noor, Hafsa, Amina, Yasmin, Salma, Ruqayya, Sumayya, Hanan,
        Rania""",
        """Mohamed, Muhammad, Ahmed, Ali, Omar, Yusuf, Ibrahim, Abdullah, Abdul Rahman, Hassan, Hussein, Khalid,
        Mustafa, Tariq, Bilal""",
        """Hassan, al-Masri, Haddad, Khalil, Abdi, Warsame, Farah, Nur, el-Sayed, Mansour, Abdelaziz, bin Rashid,
        Osman, Jama, al-Amin, Rahman, Said, Hussein, Mahmoud, Saleh""",
    ),
    "German": _population(
        0.015,
        "White",
        """Annegret, Käthe, Ursula, Heike, Grete, Anneliese, Bärbel, Jördis, Sabine, Birgit, Dörte, Ulrike, Inge,
        Hedwig, Antje""",
        """Jürgen, Günter, Jörg, Björn, Klaus, Wolfgang, Götz, Uwe, Rüdiger, Jürgen-Peter, Horst, Dieter, Karl-Heinz,
        Siegfried, Lüder""",
        """Müller, Schmidt, Schröder, Krüger, Köhler, Weiß, Groß, Schäfer, Böhm, Jäger, Vögel, Günther, Lüderitz, von
        Hülsen, Strauß, Möller, Kühn, Becker, Vogt, Großmann""",
    ),
    "Polish": _population(
        0.007,
        "White",
        """Małgorzata, Agnieszka, Katarzyna, Elżbieta, Bożena, Grażyna, Łucja, Zofia, Wioletta, Kinga""",
        """Łukasz, Paweł, Michał, Stanisław, Wojciech, Józef, Sławomir, Grzegorz, Zbigniew, Bartłomiej""",
        """Kowalski, Wiśniewski, Wójcik, Kamiński, Lewandowski, Zieliński, Szymański, Woźniak, Dąbrowski, Kozłowski,
        Jabłoński, Król, Wróbel, Gołąb, Źródlak""",
    ),
    "Danish": _population(
        0.006,
        "White",
        """Bodil, Kirsten, Sørine, Gudrun, Åse, Dagny, Ragnhild, Solvejg, Bente, Jytte""",
        """Søren, Jørgen, Jens, Åge, Niels, Bjørn, Børge, Torbjørn, Anders, Preben""",
        """Ærø, Sørensen, Jørgensen, Møller, Nørgaard, Kjær, Østergaard, Bjerregård, Hansen, Nielsen, Åkjær, Højgaard,
        Smørgrav, Lærke, Skov""",
    ),
    "French": _population(
        0.007,
        "White",
        """Chloé, Françoise, Hélène, Amélie, Noémie, Maëlle, Anaïs, Geneviève, Thérèse, Aurélie""",
        """François, Jérôme, Frédéric, Stéphane, Gaël, Loïc, Benoît, Rémi, Théo, Hervé""",
        """Lefèvre, Dubois, Béranger, Léger, Château, D'Arcy, de la Fontaine, Gauthier, Hébert, Lemaître, Mbala,
        Tshisekedi, Ngoy, Kabongo, Ilunga""",
    ),
    "West African": _population(
        0.02,
        "Black African",
        """Chidinma, Adaeze, Ngozi, Chiamaka, Funmilayo, Yetunde, Abena, Akosua, Efua, Ifeoma, Oluwaseyi, Folasade""",
        """Oluwaseun, Chukwuemeka, Emeka, Kwame, Kofi, Kwabena, Babatunde, Olumide, Ifeanyi, Obinna, Chinedu, Tunde""",
        """Okafor, Adeyemi, Mensah, Okonkwo, Eze, Nwosu, Balogun, Adebayo, Owusu, Boateng, Asante, Osei, Okeke, Obi,
        Ibrahim, Lawal, Nwachukwu, Ogunleye""",
    ),
}

ENGLISH_NAMES = {
    "Female": split_names(
        """Precious, Patience, Grace, Faith, Beauty, Maria, Anna, Joyce, Goodness, Elizabeth, Comfort, Princess, Ruth,
        Esther, Prudence, Sophie, Lettie, Queen, Hope, Happiness, Mercy, Blessing, Gift, Sarah, Martha"""
    ),
    "Male": split_names(
        """Innocent, Gift, Wiseman, Johannes, Peter, Happy, Emmanuel, Victor, Samuel, Justice, Michael, Simon, Daniel,
        Joseph, David, Brian, Moses, Lucky, Isaac, Blessing, Given, Surprise, Solomon, Elias, Jacob"""
    ),
}
"""English names that are common in families of other languages, besides or instead of a name in their own language."""
